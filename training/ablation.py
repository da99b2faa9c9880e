"""Takes parts of the any-depth design back out of a network, for the ablation of the paper's Table 3."""

from __future__ import annotations

from torch import nn

from training.models.batchnorm import SwitchableBatchNorm2d
from training.models.conv import ConvNorm
from training.models.stage import Aggregator


def slice_aggregators(model: nn.Module) -> None:
    """Lets every essential path use the first columns of the full aggregator instead of an aggregator of its own.

    Its batch norm stays its own, as in stages that never had a dedicated aggregator.
    """
    for module in model.modules():
        if isinstance(module, Aggregator) and module.essential is not None:
            norm = module.full.norm
            assert isinstance(norm, nn.BatchNorm2d)
            module.full.norm = SwitchableBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
            module.essential = None


def share_batch_norms(model: nn.Module) -> None:
    """Gives both paths one batch norm: that of the full path."""
    for module in model.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, SwitchableBatchNorm2d):
            module.norm = module.norm.full

"""Folds batch norms into convolutions: a network of one path, ready for export."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from anydepth_perception.depth.config import ESSENTIAL
from training.models.conv import ConvNorm
from training.models.stage import Aggregator


class FoldedConv(nn.Module):
    """A convolution with bias and its activation; what a `ConvNorm` becomes on one path."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor, norm: nn.BatchNorm2d, activation: nn.Module) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None, "a batch norm without running statistics cannot be folded"
        # In double, so that folding costs no more than the last rounding.
        scale = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
        self.conv = nn.Conv2d(
            weight.shape[1] * conv.groups,
            weight.shape[0],
            weight.shape[2:],  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            groups=conv.groups,
        )
        with torch.no_grad():
            self.conv.weight.copy_(weight.double() * scale[:, None, None, None])
            self.conv.bias.copy_(norm.bias.double() - mean.double() * scale)  # type: ignore[union-attr]
        self.activation = copy.deepcopy(activation)

    def forward(self, x: Tensor, path: str = "") -> Tensor:
        """Convolves and activates; the path was chosen when this was made."""
        return self.activation(self.conv(x))


class FoldedAggregator(nn.Module):
    """An aggregator of one path: a single folded convolution over the pieces that the path has."""

    def __init__(self, aggregator: Aggregator, path: str) -> None:
        super().__init__()
        source = aggregator.full
        weight = source.conv.weight
        if path == ESSENTIAL and aggregator.essential is not None:
            source = aggregator.essential
            weight = source.conv.weight
        elif path == ESSENTIAL:
            weight = weight[:, : aggregator.essential_channels]
        self.mix = FoldedConv(source.conv, weight, source.norm_of(path), source.activation)

    def forward(self, pieces: list[Tensor], path: str) -> Tensor:
        """Concatenates the pieces [B, d, H, W] and mixes them to [B, C, H, W]."""
        return self.mix(torch.cat(pieces, dim=1))


def fold(module: nn.Module, path: str) -> nn.Module:
    """A copy of `module` for inference on `path` alone, every batch norm folded away."""
    if isinstance(module, Aggregator):
        return FoldedAggregator(module, path)
    if isinstance(module, ConvNorm):
        return FoldedConv(module.conv, module.conv.weight, module.norm_of(path), module.activation)
    folded = copy.copy(module)
    folded._modules = {name: child and fold(child, path) for name, child in module._modules.items()}
    return folded.eval()

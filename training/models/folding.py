"""Folds batch norms and parallel branches into single convolutions: a network of one path, ready for export."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anydepth_perception.depth.space import ESSENTIAL
from training.models.conv import ConvNorm
from training.models.encoder import RepVggBlock
from training.models.stage import Aggregator


def folded_kernel(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias, in double, of a bias-free convolution and the batch norm behind it."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None, "a batch norm without running statistics cannot be folded"
    scale = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
    return weight.double() * scale[:, None, None, None], norm.bias.double() - mean.double() * scale


class FoldedConv(nn.Module):
    """A convolution with bias and its activation; what a `ConvNorm` becomes on one path.

    `like` gives stride, padding and groups; kernel and bias are rounded to its type.
    """

    def __init__(self, like: nn.Conv2d, kernel: Tensor, bias: Tensor, activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            kernel.shape[1] * like.groups,
            kernel.shape[0],
            kernel.shape[2:],  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            like.padding,  # type: ignore[arg-type]
            groups=like.groups,
            dtype=like.weight.dtype,
        )
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            self.conv.bias.copy_(bias)  # type: ignore[union-attr]
        self.activation = copy.deepcopy(activation)

    def forward(self, x: Tensor, path: str = "") -> Tensor:
        """Convolves and activates; the path was chosen when this was made."""
        return self.activation(self.conv(x))


def fold_rep_vgg(block: RepVggBlock, path: str) -> FoldedConv:
    """The two branches of a RepVgg block as one 3x3 convolution (re-parameterisation), for one path."""
    kernel3, bias3 = folded_kernel(block.conv1.conv.weight, block.conv1.norm_of(path))
    kernel1, bias1 = folded_kernel(block.conv2.conv.weight, block.conv2.norm_of(path))
    return FoldedConv(block.conv1.conv, kernel3 + F.pad(kernel1, (1, 1, 1, 1)), bias3 + bias1, nn.SiLU(inplace=True))


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
        self.mix = FoldedConv(source.conv, *folded_kernel(weight, source.norm_of(path)), source.activation)

    def forward(self, pieces: list[Tensor], path: str) -> Tensor:
        """Concatenates the pieces [B, d, H, W] and mixes them to [B, C, H, W]."""
        return self.mix(torch.cat(pieces, dim=1))


def fold(module: nn.Module, path: str) -> nn.Module:
    """A copy of `module` for inference on `path` alone, every batch norm and second branch folded away."""
    if isinstance(module, Aggregator):
        return FoldedAggregator(module, path)
    if isinstance(module, ConvNorm):
        return FoldedConv(module.conv, *folded_kernel(module.conv.weight, module.norm_of(path)), module.activation)
    if isinstance(module, RepVggBlock):
        return fold_rep_vgg(module, path)
    folded = copy.copy(module)
    folded._modules = {name: child and fold(child, path) for name, child in module._modules.items()}
    return folded.eval()

"""Weights with nothing left at its initial value, so that nothing agrees merely by being zero or one."""

from __future__ import annotations

import torch
from torch import nn

from training.models.conv import ConvNorm


def randomise(model: nn.Module, seed: int = 0, *, gain: float = 1.0) -> None:
    """Random batch norms, and noise on the parts that start at zero or nearly so: FINE, score and box heads.

    `gain` scales the convolutions before batch norms. At 1 a deep network forgets its image; far above 2 rounding
    errors grow from layer to layer until nothing can be compared.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.running_mean, -0.1, 0.1)
            uniform(module.running_var, 0.5, 1.5)
            uniform(module.weight, 0.8, 1.2)
            uniform(module.bias, -0.1, 0.1)
        elif isinstance(module, ConvNorm):
            module.conv.weight.data.mul_(gain)
    for name, parameter in model.named_parameters():
        if any(part in name for part in (".fine.", ".score.", ".box.", ".offsets.", ".weights.")):
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def randomise_everything(module: nn.Module, seed: int = 0) -> None:
    """Random batch norms and noise on every other parameter, small enough that activations stay of order one."""
    randomise(module, seed)
    generator = torch.Generator().manual_seed(seed)
    batch_norms = {id(p) for norm in module.modules() if isinstance(norm, nn.BatchNorm2d) for p in norm.parameters()}
    for parameter in module.parameters():
        if id(parameter) not in batch_norms:
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.25 / fan_in**0.5)

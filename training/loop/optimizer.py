"""The optimizer's parameter groups and learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from training.recipes.recipe import OptimizerSettings


def parameter_groups(
    model: nn.Module, settings: OptimizerSettings, backbone_stages: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels, none on norms, biases and other vectors; `rate` of the learning rate."""
    groups = []
    backbone_names = ("stem.", *(f"stages.{stage}." for stage in backbone_stages))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for rate, backbone in ((settings.backbone_rate, True), (1.0, False)):
        parameters = [p for name, p in named if name.startswith(backbone_names) == backbone]
        groups += [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay, "rate": rate},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "rate": rate},
        ]
    return groups


def make_optimizer(
    model: nn.Module, settings: OptimizerSettings, backbone_stages: Sequence[str] = ()
) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum, on `parameter_groups`."""
    groups = parameter_groups(model, settings, backbone_stages)
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def learning_rate(settings: OptimizerSettings, iteration: int, iterations: int) -> float:
    """Linear warm-up, then down to `final_fraction` of the peak along half a cosine or a line, or no further change."""
    if iteration < settings.warmup_iterations:
        return settings.learning_rate * (iteration + 1) / settings.warmup_iterations
    progress = (iteration - settings.warmup_iterations) / max(1, iterations - settings.warmup_iterations)
    left = {"cosine": (1 + math.cos(math.pi * progress)) / 2, "linear": 1 - progress, "constant": 1.0}
    final = settings.final_fraction
    return settings.learning_rate * (final + (1 - final) * left[settings.schedule])

"""Exponential moving average of a model's weights and statistics."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class ModelEma(Generic[Network]):
    """Keeps `decay * average + (1 - decay) * weights`; the decay grows as decay * (1 - exp(-updates / warmup))."""

    def __init__(self, model: Network, *, decay: float, warmup: int) -> None:
        self.model = copy.deepcopy(model)
        self.model.eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`; integer buffers are copied."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.warmup))
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

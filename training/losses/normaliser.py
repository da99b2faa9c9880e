"""Normalisers that all processes of a training run share."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def shared_normaliser(count: Tensor) -> Tensor:
    """What a process divides its sum of losses by: the mean of `count` over all processes, of at least 1 in all.

    Averaging gradients over the processes, as data-parallel training does, then gives the gradient of the sum of
    all losses over the sum of all counts: the same as on one process.

    Args:
        count: scalar, of this process.
    """
    total = count.detach().clone() if count.is_floating_point() else count.to(torch.float32)
    processes = 1
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        processes = distributed.get_world_size()
    return total.clamp(min=1) / processes

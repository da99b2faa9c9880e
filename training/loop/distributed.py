"""Training on several processes: who we are among them, and batch norms over the whole batch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


@dataclass(frozen=True)
class Processes:
    """The place of this process among those of a run.

    Attributes:
        rank: from 0 to `count` - 1, over all machines.
        count: processes in all.
        device: where this process computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process logs, validates and writes."""
        return self.rank == 0


ALONE = Processes()
"""One process, on the CPU."""


def join_processes(device: str = "auto") -> Processes:
    """Joins the processes that `torchrun` started, or stays alone where it did not.

    Args:
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one. With several processes on a machine, process i
            takes GPU i.

    Raises:
        ValueError: `cuda` without a GPU, or with fewer GPUs than processes.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda" and local_rank >= gpus:
        raise ValueError(f"process {local_rank} of this machine finds {gpus} GPUs; start fewer, or give --device cpu")
    where = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
    if "WORLD_SIZE" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        return Processes(device=where)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return Processes(distributed.get_rank(), distributed.get_world_size(), where)


def leave_processes() -> None:
    """Ends what `join_processes` began."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose statistics are those of all processes' batches together; runs on CPUs too.

    While not training, or on one process, it is a plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, normalised."""
        if not (self.training and distributed.is_initialized() and distributed.get_world_size() > 1):
            return super().forward(x)
        count = all_reduce(x.new_tensor(x.numel() / x.shape[1]))
        mean = all_reduce(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean[None, :, None, None]
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[None, :, None, None] + self.bias[None, :, None, None]


def synchronize_batch_norms(model: nn.Module) -> None:
    """Turns every trainable batch norm of `model` into a `SynchronizedBatchNorm2d`, on the same parameters."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                norm = SynchronizedBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
                norm.weight, norm.bias = child.weight, child.bias
                for key, buffer in child.named_buffers():
                    setattr(norm, key, buffer)
                setattr(module, name, norm)


def mean_over_processes(values: dict[str, float]) -> dict[str, float]:
    """The mean of each value over all processes, which all have the same keys in the same order."""
    if not distributed.is_initialized():
        return values
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    total = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return dict(zip(values, (total / distributed.get_world_size()).tolist(), strict=True))

"""The place of a process among those that share out the work of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


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

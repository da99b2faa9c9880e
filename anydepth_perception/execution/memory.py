"""Planned memory: tensors whose lives do not overlap share the bytes of one block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anydepth_perception.backends.base import Placement, size_bytes
from anydepth_perception.bundle.manifest import TensorSpec

ALIGNMENT = 256
"""Offsets are multiples of it, bytes: what accelerators ask of a tensor's address."""


@dataclass(frozen=True)
class Life:
    """A tensor and the steps between which its memory is its own, both included: written first, read last."""

    spec: TensorSpec
    first: int
    last: int

    def overlaps(self, other: Life) -> bool:
        """Whether there is a step at which both are alive."""
        return self.first <= other.last and other.first <= self.last


def place(lives: Sequence[Life]) -> list[Placement]:
    """Offsets for all tensors, such that those alive at the same step do not share a byte; in the order given.

    Greedy by size: the largest first, each at the lowest offset that is free for all of its life.
    """
    placed: list[tuple[Life, Placement]] = []
    for life in sorted(lives, key=lambda life: (-size_bytes(life.spec), life.first, life.spec.name)):
        taken = sorted(
            (placement.offset, placement.end) for other, placement in placed if other.overlaps(life)
        )
        size, offset = size_bytes(life.spec), 0
        for begin, end in taken:
            if offset + size <= begin:
                break
            offset = max(offset, _aligned(end))
        placed.append((life, Placement(life.spec, offset)))
    by_name = {life.spec.name: placement for life, placement in placed}
    return [by_name[life.spec.name] for life in lives]


def block_bytes(placements: Sequence[Placement]) -> int:
    """Size of the block that holds all of them."""
    return max((placement.end for placement in placements), default=0)


def smallest_block_bytes(lives: Sequence[Life]) -> int:
    """What no plan can go below: the most that is alive at one step."""
    steps = {life.first for life in lives}
    return max(
        (sum(size_bytes(life.spec) for life in lives if life.first <= step <= life.last) for step in steps), default=0
    )


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT

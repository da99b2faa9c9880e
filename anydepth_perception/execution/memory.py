"""Planned memory: tensors whose lifetimes do not overlap share the bytes of one block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anydepth_perception.backends.base import Placement, size_bytes
from anydepth_perception.bundle.manifest import Segment, TensorSpec

ALIGNMENT = 256
"""Offsets are multiples of it, bytes: what accelerators ask of a tensor's address."""


@dataclass(frozen=True)
class Lifetime:
    """A tensor and the steps between which its memory is its own, both included: written first, read last."""

    spec: TensorSpec
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether there is a step at which both are alive."""
        return self.first <= other.last and other.first <= self.last


def find_lifetimes(groups: Sequence[Iterable[Segment]], results: Sequence[str]) -> list[Lifetime]:
    """Lifetimes of the tensors that cross from one group to a later one, and of `results`, which live to the end.

    Args:
        groups: per group, the segments of all ways through it; a step is a group's index.
        results: tensors that are read after the last group.
    """
    specs: dict[str, TensorSpec] = {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, segments in enumerate(groups):
        for segment in segments:
            for spec in segment.inputs:
                if spec.name in first:
                    last[spec.name] = step
            for spec in segment.outputs:
                specs.setdefault(spec.name, spec)
                first.setdefault(spec.name, step)
    last.update({name: len(groups) for name in results})
    return [Lifetime(specs[name], first[name], end) for name, end in last.items() if end > first[name]]


def place(lifetimes: Sequence[Lifetime]) -> list[Placement]:
    """Offsets for all tensors, such that those alive at the same step do not share a byte; in the order given.

    Greedy by size: the largest first, each at the lowest offset that is free as long as it is alive.
    """
    placed: list[tuple[Lifetime, Placement]] = []
    for tensor in sorted(lifetimes, key=lambda tensor: (-size_bytes(tensor.spec), tensor.first, tensor.spec.name)):
        taken = sorted((placement.offset, placement.end) for other, placement in placed if other.overlaps(tensor))
        size, offset = size_bytes(tensor.spec), 0
        for begin, end in taken:
            if offset + size <= begin:
                break
            offset = max(offset, -(-end // ALIGNMENT) * ALIGNMENT)
        placed.append((tensor, Placement(tensor.spec, offset)))
    by_name = {placement.spec.name: placement for _, placement in placed}
    return [by_name[tensor.spec.name] for tensor in lifetimes]

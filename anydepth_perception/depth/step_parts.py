"""Steps taken apart: what each longer way through an entry adds to the one before it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step

LEAST_SHARE = 0.05
"""So much of a step, at the least, counts as what it adds to the shorter way, or is left of what was expected of it."""


def take_apart(space: DepthSpace, step_ms: Mapping[Step, float]) -> dict[Step, float]:
    """What each step adds to the way before it; the first way of an entry counts as a whole. All above 0."""
    added: dict[Step, float] = {}
    for entry in space.entries:
        before = 0.0
        for way in entry.ways:
            step = Step(entry.name, way)
            added[step] = max(step_ms[step] - before, LEAST_SHARE * step_ms[step])
            before = max(before, step_ms[step])
    return added


def sum_up(space: DepthSpace, added: Mapping[Step, float]) -> dict[Step, float]:
    """The steps that parts add up to: the inverse of `take_apart`."""
    sums: dict[Step, float] = {}
    for entry in space.entries:
        steps = [Step(entry.name, way) for way in entry.ways]
        sums.update(zip(steps, itertools.accumulate(added[step] for step in steps), strict=True))
    return sums


def parts_of(space: DepthSpace, config: DepthConfig) -> set[Step]:
    """The parts whose sum `config` takes: the steps that run, and those of the same entries that do less.

    Raises:
        DepthConfigError: the network has no such configuration.
    """
    ways = {entry.name: entry.ways for entry in space.entries}
    return {
        Step(step.entry, way)
        for step in space.route(config)
        for way in ways[step.entry][: ways[step.entry].index(step.way) + 1]
    }

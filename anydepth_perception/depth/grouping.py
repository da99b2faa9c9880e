"""Entries grouped by decision points: what runs without a decision in between, and the ways through each group."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence

from anydepth_perception.depth.space import DecisionPointError, DepthConfig, DepthSpace, Step

MAX_WAYS = 64
"""Ways through one group where decisions are made within a frame; five stages have 32, eight have 256."""

Way = tuple[Step, ...]
"""One way through a group: a step for each of its entries."""


class Grouping:
    """The groups of a space between the frame's start and `points`, and how configurations run through them."""

    def __init__(self, space: DepthSpace, points: Iterable[str] = ()) -> None:
        """Cuts before every entry of `points`.

        Raises:
            DecisionPointError: a point is not an entry, or two are so far apart that a group has more than `MAX_WAYS`
                ways. A single group may have any number: nobody needs all of them.
        """
        self.space = space
        self.groups = space.groups(points)
        self._bounds = list(itertools.pairwise([0, *itertools.accumulate(map(len, self.groups))]))
        ways = {entry.name: len(entry.ways) for entry in space.entries}
        for group in self.groups if len(self.groups) > 1 else ():
            number = math.prod(ways[name] for name in group)
            if number > MAX_WAYS:
                raise DecisionPointError(
                    f"{number} combinations of paths from {group[0]} to {group[-1]}, at most {MAX_WAYS} are compiled; "
                    f"put a decision point between them"
                )

    def ways_of(self, config: DepthConfig) -> tuple[Way, ...]:
        """The way that `config` takes through each group; configurations with the same way run the same engine there.

        Raises:
            DepthConfigError: the network has no such configuration.
        """
        route = self.space.route(config)
        return tuple(route[first:end] for first, end in self._bounds)

    def all_ways(self) -> Iterator[Way]:
        """Every way through every group, in execution order of the groups."""
        steps = {entry.name: [Step(entry.name, way) for way in entry.ways] for entry in self.space.entries}
        for group in self.groups:
            yield from itertools.product(*(steps[name] for name in group))

    def covering(self, ways: Collection[Way], preferred: Sequence[DepthConfig] = ()) -> list[DepthConfig]:
        """Configurations that between them take all of `ways`: of `preferred` as far as they help."""
        missing = dict.fromkeys(ways)
        chosen: list[DepthConfig] = []

        def take(config: DepthConfig) -> None:
            taken = [way for way in self.ways_of(config) if way in missing]
            for way in taken:
                del missing[way]
            if taken:
                chosen.append(config)

        for config in preferred:
            take(config)
        while missing:
            steps: dict[str, str] = {}
            for way in missing:
                if way[0].entry not in steps:
                    steps.update(way)
            take(self.space.config(Step(*item) for item in steps.items()))
        return chosen

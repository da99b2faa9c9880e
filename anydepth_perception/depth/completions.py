"""Completion tables: for every decision point and all that may have run before it, what each way on can still reach."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step

BIN = 0.01
"""Width of the bins of ln(milliseconds): times are told apart to one percent."""

MAX_BIN = 800
"""Of completions: what takes e^8 times as long as the fastest one, or longer, counts as that."""


@dataclass(slots=True)
class Node:
    """A decision: the ways through the group that comes next, after what has run before it.

    A way is known by its completions, all that may follow it up to the frame's end: of these, those that no faster one
    of the same way beats in AP, in ascending order of time. They lie one after another, way after way, the ways in
    ascending order of their fastest completion. Ways that another beats at any time are left out.

    Attributes:
        first_bin: ln(milliseconds) of bin 0.
        bins: of each completion, the first bin whose milliseconds are enough for it, int [completions].
        values: AP in [0, 1] of each completion, float64 [completions].
        sums: of a completion at the way that it belongs to: foresight / (1 - foresight) times what it adds to the one
            before it of the same way; and behind that 1 where it is the way's first, float64 [completions, 2 ways].
        starts: index of the first completion of each way, int [ways]; way 0 has the fastest of all.
        firsts: the same numbers.
        bins_of: bins of the completions of each way.
        configs: the configuration of each completion.
        group_ms: profiled milliseconds of each way through the group.
        fastest_ms: profiled milliseconds of the fastest completion of all.
        base: the way of the base-net's steps, where it is one of the ways, else way 0.
        base_config: the completion by the base-net's steps, or the fastest one.
        deepest: the way with the best completion of all.
        deepest_bin: the bin of that completion.
        deepest_config: that completion.
        children: the next decision after each way; empty behind the last one.
    """

    first_bin: float
    bins: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    starts: np.ndarray
    firsts: list[int]
    bins_of: list[list[int]]
    configs: list[DepthConfig]
    group_ms: list[float]
    fastest_ms: float
    base: int
    base_config: DepthConfig
    deepest: int
    deepest_bin: int
    deepest_config: DepthConfig
    children: list[Node] = field(default_factory=list)


def build_tables(
    space: DepthSpace,
    step_ms: Mapping[Step, float],
    average_precision: Mapping[DepthConfig, float],
    points: Sequence[str] = (),
    config_ms: Mapping[DepthConfig, float] | None = None,
    *,
    foresight: float = 0.5,
) -> Node:
    """The decision at the start of a frame, and behind it all others.

    Args:
        space: what there is to choose from.
        step_ms: profiled milliseconds of every step, above 0.
        average_precision: AP in [0, 1] of the configurations that may be chosen, at least one.
        points: entries before which it is decided again.
        config_ms: milliseconds of whole configurations, which count instead of the sum of their steps; for a frame
            without points alone.
        foresight: see `ControllerParameters`, at least 0 and below 1.
    """
    configs = list(average_precision)
    routes = [space.route(config) for config in configs]
    milliseconds = np.array([[step_ms[step] for step in route] for route in routes])
    if config_ms is not None:
        totals = np.array([config_ms.get(config, math.nan) for config in configs])
        sums = milliseconds.sum(axis=1)
        milliseconds *= np.where(np.isnan(totals), 1.0, totals / sums)[:, None]
    ways = np.array([[entry.ways.index(step.way) for entry, step in zip(space.entries, route, strict=True)]
                     for route in routes])
    bounds = [len(group) for group in space.groups(points)]
    ends = list(itertools.accumulate(bounds))
    values = np.array([average_precision[config] for config in configs])
    base_ways = np.array([entry.ways.index(step.way)
                          for entry, step in zip(space.entries, space.route(space.base), strict=True)])
    return _Builder(configs, ways, milliseconds, values, ends, foresight, base_ways).node(np.arange(len(configs)), 0)


@dataclass(frozen=True)
class _Builder:
    configs: list[DepthConfig]
    ways: np.ndarray
    milliseconds: np.ndarray
    values: np.ndarray
    ends: list[int]
    foresight: float
    base_ways: np.ndarray

    def node(self, rows: np.ndarray, level: int) -> Node:
        """The decision between the configurations `rows`, which agree up to group `level`."""
        start, end = 0 if level == 0 else self.ends[level - 1], self.ends[level]
        remaining_ms = self.milliseconds[rows, start:].sum(axis=1)
        first_bin = math.log(float(remaining_ms.min()))
        bins = np.ceil((np.log(remaining_ms) - first_bin) / BIN - 1e-6).clip(0, MAX_BIN).astype(np.intp)
        _, way_of = np.unique(self.ways[rows, start:end], axis=0, return_inverse=True)
        order = np.lexsort((-self.values[rows], remaining_ms))
        fronts: dict[int, list[int]] = {}
        for index in order.tolist():
            front = fronts.setdefault(int(way_of.flat[index]), [])
            if not front or self.values[rows[index]] > self.values[rows[front[-1]]]:
                front.append(index)
        kept: list[list[int]] = []
        for front in fronts.values():
            if not any(self._beats(rows, bins, other, front) for other in kept):
                kept.append(front)
        completions = [index for front in kept for index in front]
        values = self.values[rows[completions]]
        starts = np.cumsum([0, *(len(front) for front in kept)])[:-1]
        gains = np.diff(values, prepend=0.0)
        gains[starts] = values[starts]
        sums = np.zeros((len(values), 2 * len(kept)))
        odds = self.foresight / (1.0 - self.foresight)
        sums[np.arange(len(values)), np.repeat(np.arange(len(kept)), [len(front) for front in kept])] = odds * gains
        sums[starts, len(kept) + np.arange(len(kept))] = 1.0
        deepest = int(values.argmax())
        base_row, base = self._base(rows, start, way_of, kept)
        node = Node(
            first_bin=first_bin,
            bins=bins[completions],
            values=values,
            sums=sums,
            starts=starts,
            firsts=starts.tolist(),
            bins_of=[bins[front].tolist() for front in kept],
            configs=[self.configs[rows[index]] for index in completions],
            group_ms=[float(self.milliseconds[rows[front[0]], start:end].sum()) for front in kept],
            fastest_ms=float(remaining_ms.min()),
            base=base,
            base_config=self.configs[rows[kept[0][0]] if base_row is None else rows[base_row]],
            deepest=int(np.searchsorted(starts, deepest, side="right")) - 1,
            deepest_bin=int(bins[completions[deepest]]),
            deepest_config=self.configs[rows[completions[deepest]]],
        )
        if end < self.ways.shape[1]:
            node.children = [self.node(rows[way_of.flat == way_of.flat[front[0]]], level + 1) for front in kept]
        return node

    def _base(self, rows: np.ndarray, start: int, way_of: np.ndarray, kept: list[list[int]]) -> tuple[int | None, int]:
        """The row of the base-net's completion, and its way; None and way 0 where that is not to be chosen."""
        matching = np.flatnonzero((self.ways[rows, start:] == self.base_ways[start:]).all(axis=1))
        for row in matching.tolist():
            for way, front in enumerate(kept):
                if way_of.flat[front[0]] == way_of.flat[row]:
                    return row, way
        return None, 0

    def _beats(self, rows: np.ndarray, bins: np.ndarray, one: list[int], other: list[int]) -> bool:
        """Whether for every completion of `other` one of `one` is no slower and no worse."""
        return all(
            any(
                bins[mine] <= bins[theirs] and self.values[rows[mine]] >= self.values[rows[theirs]] for mine in one
            )
            for theirs in other
        )

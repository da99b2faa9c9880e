"""The choice at a decision point: the way of most worth, under a bound on misses that a shallower one would avoid."""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anydepth_perception.depth.completions import BIN, Node
from anydepth_perception.depth.residuals import ResidualWindow
from anydepth_perception.depth.space import DepthConfig


class Choice(NamedTuple):
    """The configuration to go on with, its way through the group, and whether anything is likely to be in time."""

    config: DepthConfig
    way: int
    feasible: bool


def choose(node: Node, window: ResidualWindow, log_left: float, risk_bound: float, price: float) -> Choice:
    """The way through the next group with the highest expected AP of frames in time.

    Args:
        node: the ways and their completions.
        window: how far from expected the frames before were at this point.
        log_left: ln of the profiled milliseconds that the time left is expected to be worth.
        risk_bound: share of frames by which a way may be late more often than the fastest completion.
        price: AP that such a miss costs beside the frame's own.
    """
    expected = math.floor((log_left - node.first_bin) / BIN + 1e-6)
    seen, size = window.in_time(expected), window.size
    if seen[node.deepest_bin] == size:
        return Choice(node.deepest_config, node.deepest, True)  # every frame seen had time for all
    if seen[0] == 0.0:
        return Choice(node.base_config, node.base, False)  # none had time for anything
    # Of the frames seen, so many would have had time for each completion.
    in_time = seen.take(node.bins)
    unchanged = np.maximum.reduceat(in_time * node.values, node.starts).tolist()
    number = len(unchanged)
    sums = in_time.dot(node.sums).tolist()
    surviving = sums[number:]
    worth = list(map(operator.add, unchanged, sums)) if node.children else unchanged
    way = _best_way(worth, surviving, risk_bound * size, price)
    fitting = bisect_right(node.bins_of[way], expected)
    return Choice(node.configs[node.firsts[way] + max(0, fitting - 1)], way, surviving[0] >= 0.5 * size)


def _best_way(worth: Sequence[float], surviving: Sequence[float], bound: float, price: float) -> int:
    """The way of most worth whose fastest completion is not much more often late than the fastest of all."""
    most, best, best_worth = surviving[0], 0, -math.inf
    for way, value in enumerate(worth):
        risk = most - surviving[way]
        if risk > bound:
            break  # ways are in ascending order of time
        value -= price * risk
        if value > best_worth:
            best, best_worth = way, value
    return best

"""Times several contenders in turns, so that the ratio of two compares them in the same moments of the machine."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Times = dict[str, list[float]]
"""Milliseconds of every contender, one value for each round."""

_REST_S = 0.005
"""Between contenders: threads of ONNX Runtime's default session go on spinning for a millisecond after a run."""


def measure_in_turns(
    contenders: Mapping[str, Callable[[], object]],
    *,
    seconds: float = float("inf"),
    min_rounds: int = 3,
    max_rounds: int = 60,
    frames: int = 3,
    seed: int = 0,
) -> Times:
    """Runs all contenders in every round, in an order that changes from round to round.

    A contender's turn is one run that is not counted, which finds the other's data in the caches, and `frames` that
    are; their median is its value of that round.

    Args:
        contenders: what to run, by name.
        seconds: no round begins after that, once there are `min_rounds`.
        min_rounds: at least that many rounds.
        max_rounds: at most that many.
        frames: runs that are counted in a turn.
        seed: of the orders.
    """
    orders = random.Random(seed)
    names = list(contenders)
    times: Times = {name: [] for name in names}
    end = time.perf_counter() + seconds
    for done in range(max_rounds):
        if done >= min_rounds and time.perf_counter() >= end:
            break
        orders.shuffle(names)
        for name in names:
            times[name].append(_turn(contenders[name], frames))
    return times


def ratios(times: Times, numerator: str, denominator: str) -> list[float]:
    """The ratio of two contenders in every round."""
    return [above / below for above, below in zip(times[numerator], times[denominator], strict=True)]


def median_ratio(times: Times, numerator: str, denominator: str) -> float:
    """Median over the rounds of the ratio of two contenders."""
    return statistics.median(ratios(times, numerator, denominator))


def _turn(run: Callable[[], object], frames: int) -> float:
    time.sleep(_REST_S)
    run()
    values: Sequence[float] = [_milliseconds(run) for _ in range(frames)]
    return statistics.median(values)


def _milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3

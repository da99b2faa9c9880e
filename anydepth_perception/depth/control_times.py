"""Times and AP that the depth controller is given: refused or mended where they cannot be right."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from typing import TypeVar

from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step

_CLEARLY = 0.9
"""Times of steps scatter by some percent; a full path must be faster than its essential one by more to be doubted."""

Key = TypeVar("Key")


def checked_steps(space: DepthSpace, step_ms: Mapping[Step, float]) -> dict[Step, float]:
    """Times of all steps of `space`. Raises: ValueError."""
    for step in space.steps:
        if step not in step_ms:
            raise ValueError(f"step_ms lacks {step}")
    return checked_times("step_ms", {step: step_ms[step] for step in space.steps})


def checked_times(name: str, times: Mapping[Key, float]) -> dict[Key, float]:
    """Times that are finite and above 0. Raises: ValueError."""
    for key, value in times.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} of {key} is {value}, expected a finite time above 0 ms")
    return dict(times)


def checked_totals(
    space: DepthSpace, config_ms: Mapping[DepthConfig, float], doubts: list[str]
) -> dict[DepthConfig, float]:
    """Times of whole configurations; a full that is clearly faster than base goes into `doubts`. Raises: ValueError."""
    checked = checked_times("config_ms", config_ms)
    base, full = checked.get(space.base), checked.get(space.full)
    if base is not None and full is not None and full < _CLEARLY * base:
        doubts.append(
            f"profile: full takes {full:.3g} ms, less than base with {base:.3g} ms; measure again on an idle machine"
        )
    return checked


def checked_host_time(name: str, milliseconds: float) -> float:
    """A time that is finite and not negative. Raises: ValueError."""
    if not 0.0 <= milliseconds < math.inf:
        raise ValueError(f"{name} is {milliseconds}, expected a finite time of at least 0 ms")
    return milliseconds


def checked_precision(space: DepthSpace, average_precision: Mapping[DepthConfig, float]) -> dict[DepthConfig, float]:
    """AP of configurations of `space`, base and full among them. Raises: ValueError, DepthConfigError."""
    for config, value in average_precision.items():
        space.check(config)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"average_precision of {config} is {value}, expected a number in [0, 1]")
    for config in (space.base, space.full):
        if config not in average_precision:
            raise ValueError(f"average_precision lacks {config}")
    return dict(average_precision)


def monotone(space: DepthSpace, step_ms: Mapping[Step, float], doubts: list[str]) -> dict[Step, float]:
    """Times of which none is shorter than that of a step which does less; what was clearly so goes into `doubts`."""
    result = dict(step_ms)
    for entry in space.entries:
        for less, more in itertools.pairwise(entry.ways):
            shorter, longer = result[Step(entry.name, less)], result[Step(entry.name, more)]
            if longer < shorter:
                if longer < _CLEARLY * shorter:
                    doubts.append(
                        f"profile: {entry.name} takes {longer:.3g} ms at {more}, less than {shorter:.3g} ms at {less}; "
                        f"the longer time counts, measure again on an idle machine"
                    )
                result[Step(entry.name, more)] = shorter
    return result


def scaled(
    space: DepthSpace, step_ms: Mapping[Step, float], config_ms: Mapping[DepthConfig, float]
) -> dict[Step, float]:
    """Steps measured one by one, or estimated, do not add up to the whole exactly; their sum is corrected."""
    ratios = [milliseconds / space.total(step_ms, config) for config, milliseconds in config_ms.items()]
    scale = statistics.median(ratios) if ratios else 1.0
    return {step: milliseconds * scale for step, milliseconds in step_ms.items()}

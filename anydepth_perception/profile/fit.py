"""Times of steps that add up to all measured configurations as well as they can, none shorter than what does less."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step
from anydepth_perception.depth.step_parts import LEAST_SHARE, parts_of, sum_up, take_apart

MOST_RESIDUAL = 0.05
"""Times that contradict each other by more are not kept: an idle machine's steps add up within some percent."""

_PRIOR_SCATTER = 0.5
"""Relative standard deviation of what is expected of a step before whole configurations are looked at."""

_LEAST_SCATTER = 0.01
"""Relative standard deviation of a configuration's time, whatever its samples say: steps do not add up exactly."""

_OUTLIER = 2.0
"""Standard deviations from which on a configuration counts less, as a disturbance has met it."""

_REWEIGHTED = 10


@dataclass(frozen=True)
class StepFit:
    """Milliseconds of each step, and the root mean square of ln(measured / sum of steps) over the configurations."""

    step_ms: Mapping[Step, float]
    residual: float


def fit_steps(
    space: DepthSpace,
    expected_ms: Mapping[Step, float],
    config_ms: Mapping[DepthConfig, float],
    scatter: Mapping[DepthConfig, float] | None = None,
) -> StepFit:
    """Fits the steps of a network to measured times of whole configurations.

    Each step, and what each longer way of an entry adds to the one before it, starts from what is expected of it and
    moves as far as the configurations ask for. It stays above 0, so that what does more takes longer. A configuration
    that contradicts the others counts less (Huber's weights).

    Args:
        space: of the network.
        expected_ms: of every step, above 0: measured one by one, or shares by GFLOPs. Only their proportions count.
        config_ms: measured times of configurations, above 0, at least one.
        scatter: relative standard deviation of these times, where known.
    """
    expected_parts = take_apart(space, expected_ms)
    parts, expected = list(expected_parts), np.array(list(expected_parts.values()))
    configs = list(config_ms)
    taken = [parts_of(space, config) for config in configs]
    uses = np.array([[step in steps for step in parts] for steps in taken], float)
    measured = np.array([config_ms[config] for config in configs])
    expected *= statistics.median((measured / (uses @ expected)).tolist())
    deviations = np.array([max(_LEAST_SCATTER, (scatter or {}).get(config, 0.0)) for config in configs])
    design = uses * expected / measured[:, None]  # each row sums to about 1
    wanted = 1.0 - design.sum(axis=1)
    weights = np.ones(len(configs))
    change = np.zeros(len(parts))
    for _ in range(_REWEIGHTED):
        change = _bounded_least_squares(design, wanted, np.sqrt(weights) / deviations)
        errors = np.abs(design @ change - wanted) / deviations
        weights = np.minimum(1.0, _OUTLIER / np.maximum(errors, 1e-9))
    added = dict(zip(parts, (expected * (1.0 + change)).tolist(), strict=True))
    fitted = uses @ (expected * (1.0 + change))
    residual = math.sqrt(float(np.mean(np.log(measured / fitted) ** 2)))
    return StepFit(sum_up(space, added), residual)


def _bounded_least_squares(design: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Relative changes of the parts, none below `LEAST_SHARE` - 1: for those at the bound, the others are solved."""
    least = LEAST_SHARE - 1.0
    rows, goal = design * weights[:, None], wanted * weights
    matrix = rows.T @ rows + np.eye(design.shape[1]) / _PRIOR_SCATTER**2
    vector = rows.T @ goal
    change, free = np.full(design.shape[1], least), np.ones(design.shape[1], bool)
    while free.any():
        held = matrix[np.ix_(free, ~free)].sum(axis=1) * least
        solved = np.linalg.solve(matrix[np.ix_(free, free)], vector[free] - held)
        change[free] = np.maximum(solved, least)
        below = np.flatnonzero(free)[solved < least]
        if not below.size:
            break
        free[below] = False
    return change

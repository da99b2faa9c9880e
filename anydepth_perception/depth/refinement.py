"""What served frames tell of a profile: how far each part of a configuration's time is off, apart from the load."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step
from anydepth_perception.depth.step_parts import parts_of, sum_up, take_apart

_PART_SCATTER = 0.2
"""Standard deviation of ln(true / profiled) of a part's time, before any frame is seen."""

_SPAN_SCATTER = 0.5
"""That of an error which all that longer ways add has in common: GFLOPs say least of what a refinement costs."""

_LOAD_STEP = 0.07
"""That of the change of ln(slowdown) from frame to frame: only frames close together are compared."""

_NOISE = 0.05
"""That of what a single frame takes, in logarithms."""

_MOST_SURPRISE = 2.0
"""Standard deviations from which on a frame tells nothing of depth: it stalled, or the load has changed at once."""

_JUMP = 0.5
"""Standard deviation of the change of ln(slowdown) behind such a frame."""

_LEVEL_RISES, _LEVEL_FALLS = 0.1, 0.005
"""How fast the level follows the slowdown: it is one that frames keep below most of the time."""

_LEAST_CHANGE = 0.02
"""Relative change of some configuration's time below which nothing is refined."""


class Refinement:
    """A Kalman filter over ln(slowdown), which wanders, and the errors of the parts of the profile, which don't.

    Where depth changes from one frame to the next while the load hardly does, the ratio of their times tells of the
    profile. Load alone moves all configurations alike, and so moves no part. The decision for a depth depends on frames
    that were seen before, so that it does not bias what the frame tells.

    The level of the profile is an idle machine's: it is lowered where frames go on to be faster, and never raised.
    """

    def __init__(self, space: DepthSpace, step_ms: Mapping[Step, float]) -> None:
        """`step_ms` are the profiled times of all steps, above 0."""
        self._space = space
        self._parts = list(take_apart(space, step_ms))
        self._added = np.array(list(take_apart(space, step_ms).values()))
        self._uses: dict[DepthConfig, np.ndarray] = {}
        size = 1 + len(self._parts)
        self._state = np.zeros(size)
        first = {Step(entry.name, entry.ways[0]) for entry in space.entries}
        longer = np.array([False, *(step not in first for step in self._parts)])
        self._covariance = np.eye(size) * _PART_SCATTER**2 + np.outer(longer, longer) * _SPAN_SCATTER**2
        self._covariance[0, 0] = 1.0
        self._level = 0.0
        self.frames = 0
        """Frames that were seen."""

    @property
    def uncertainty(self) -> float:
        """Standard deviation of ln(full / base), the span of the ladder: small once both were served often."""
        span = self._shares(self._space.full) - self._shares(self._space.base)
        return math.sqrt(max(0.0, float(span @ self._covariance @ span)))

    def observe(self, config: DepthConfig, inference_ms: float) -> None:
        """Takes in a frame that ran `config`; a time that is not finite and above 0 teaches nothing."""
        if not 0.0 < inference_ms < math.inf:
            return
        shares = self._shares(config)
        profiled_ms = float(self._use(config) @ self._added)
        self._covariance[0, 0] += _LOAD_STEP**2
        gain = self._covariance @ shares
        variance = float(shares @ gain) + _NOISE**2
        surprise = math.log(inference_ms / profiled_ms) - float(shares @ self._state)
        self.frames += 1
        if abs(surprise) > _MOST_SURPRISE * math.sqrt(variance):
            self._covariance[0, 0] += _JUMP**2  # a stall, or the load is another one from now on
            return
        self._state += gain * (surprise / variance)
        self._covariance -= np.outer(gain, gain) / variance
        deviation = float(self._state[0]) - self._level
        self._level += deviation * (_LEVEL_RISES if deviation > 0.0 else _LEVEL_FALLS)

    def refine(self) -> dict[Step, float] | None:
        """Times of the steps by all that was seen, from which the filter goes on; None where little has changed."""
        factor = np.exp(self._state[1:] + min(0.0, self._level))
        before, after = self._added, self._added * factor
        configs = (self._space.base, self._space.full, *self._uses)
        changes = [abs(math.log(float(self._use(c) @ after) / float(self._use(c) @ before))) for c in configs]
        if max(changes) < _LEAST_CHANGE:
            return None
        self._added = after
        self._state[1:] = 0.0
        if self._level < 0.0:
            self._state[0] -= self._level
            self._level = 0.0
        return sum_up(self._space, dict(zip(self._parts, after.tolist(), strict=True)))

    def _use(self, config: DepthConfig) -> np.ndarray:
        """1 for each part that `config` takes, else 0."""
        known = self._uses.get(config)
        if known is None:
            taken = parts_of(self._space, config)
            known = self._uses[config] = np.array([float(step in taken) for step in self._parts])
        return known

    def _shares(self, config: DepthConfig) -> np.ndarray:
        """How ln(time) of `config` follows the state: the slowdown as it is, each part by its share of the time."""
        times = self._use(config) * self._added
        return np.concatenate([[1.0], times / times.sum()])

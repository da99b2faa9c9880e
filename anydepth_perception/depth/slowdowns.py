"""How much slower than profiled the machine is: logarithms of actual over profiled time, of engines and of the host."""

from __future__ import annotations

import math
from collections import deque

from anydepth_perception.depth.control_settings import ControllerParameters

_MAX_LOG_SLOWDOWN = 10.0
"""Far beyond any real slowdown (22,000 times); keeps a broken clock from overflowing the estimates."""

_SLOW_STEP, _FAST_STEP, _HOST_STEP = 0.3, 1.0, 0.5
"""A stall is no slowdown: by so much of one frame's deviation the means move at most, times their gain."""

_HOST_GAIN = 0.3


class Slowdowns:
    """A slow and a fast mean of the engines' ln(slowdown) over frames, and one of the host's."""

    __slots__ = ("_announced", "_fast_gain", "_slow_gain", "fast", "host", "slow")

    def __init__(self, parameters: ControllerParameters) -> None:
        """All start at the initial slowdown."""
        self.slow = self.fast = self.host = math.log(parameters.initial_slowdown)
        self._slow_gain, self._fast_gain = parameters.slow_gain, parameters.fast_gain
        self._announced: deque[tuple[float, bool]] = deque()

    def announce(self, log_ratio: float, host: bool) -> None:
        """From the next `follow` on, times are e^`log_ratio` of what they were; from any thread."""
        if math.isfinite(log_ratio):
            self._announced.append((log_ratio, host))

    def follow(self) -> None:
        """Moves the means by all that was announced."""
        while self._announced:
            log_ratio, host = self._announced.popleft()
            if host:
                self.host = _bounded(self.host + log_ratio)
            else:
                self.slow, self.fast = _bounded(self.slow + log_ratio), _bounded(self.fast + log_ratio)

    def observe(self, log_slowdown: float) -> None:
        """One frame's ln(actual / profiled) of the engines."""
        self.slow = _bounded(self.slow + self._slow_gain * clipped(log_slowdown - self.slow, _SLOW_STEP))
        self.fast = _bounded(self.fast + self._fast_gain * clipped(log_slowdown - self.fast, _FAST_STEP))

    def observe_host(self, log_slowdown: float) -> None:
        """One frame's ln(actual / profiled) of everything else."""
        self.host = _bounded(self.host + _HOST_GAIN * clipped(log_slowdown - self.host, _HOST_STEP))


def clipped(deviation: float, most: float) -> float:
    """`deviation`, or the nearer one of -`most` and `most` where it is beyond them."""
    return min(most, max(-most, deviation))


def _bounded(log_slowdown: float) -> float:
    return clipped(log_slowdown, _MAX_LOG_SLOWDOWN)

"""Online estimates of how much slower than profiled this machine is now, and how far above that a frame may go."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MAX_LOG_SLOWDOWN = 10.0
"""Far beyond any real slowdown (22,000 times); keeps a broken clock from overflowing the estimates."""


@dataclass(frozen=True)
class EstimatorParameters:
    """Constants of the slowdown filter and of the conformal margin; logarithms are natural.

    initial_slowdown, initial_variance: the filter's state before the first frame;
    process_variance: how much ln(slowdown) drifts from frame to frame;
    measurement_variance: how much one frame's ln(actual / profiled) scatters;
    epsilon: share of frames allowed above the bound, in (0, 1);
    initial_margin, minimum_margin, maximum_margin: of ln(actual / expected);
    step, initial_scale, minimum_scale, scale_decay, maximum_residual: speed of the margin's adaptation.
    """

    initial_slowdown: float = 1.2
    initial_variance: float = 0.02
    process_variance: float = 6e-4
    measurement_variance: float = 0.003
    epsilon: float = 0.01
    initial_margin: float = 0.25
    minimum_margin: float = 0.02
    maximum_margin: float = 0.9
    step: float = 0.12
    initial_scale: float = 0.1
    minimum_scale: float = 0.03
    scale_decay: float = 0.995
    maximum_residual: float = 0.6


def usable_time(milliseconds: float | None) -> bool:
    """Whether a time can be learnt from: finite and above 0."""
    return milliseconds is not None and 0.0 < milliseconds < math.inf  # NaN fails both comparisons


class SlowdownFilter:
    """A scalar Kalman filter of ln(slowdown), slowdown being actual over profiled time."""

    __slots__ = ("_parameters", "_variance", "log_slowdown")

    def __init__(self, parameters: EstimatorParameters | None = None) -> None:
        """Starts at the initial slowdown of `parameters`."""
        self._parameters = parameters or EstimatorParameters()
        self.log_slowdown = math.log(self._parameters.initial_slowdown)
        self._variance = self._parameters.initial_variance

    @property
    def slowdown(self) -> float:
        """Estimate of actual over profiled time."""
        return math.exp(self.log_slowdown)

    def update(self, actual_ms: float, profiled_ms: float) -> None:
        """Learns from one frame; times that are not finite and above 0 are skipped."""
        if not (usable_time(actual_ms) and usable_time(profiled_ms)):
            return
        # The logarithms apart: the quotient of two finite times need not be finite.
        innovation = math.log(actual_ms) - math.log(profiled_ms) - self.log_slowdown
        variance = self._variance + self._parameters.process_variance
        gain = variance / (variance + self._parameters.measurement_variance)
        log_slowdown = self.log_slowdown + gain * innovation
        self.log_slowdown = min(_MAX_LOG_SLOWDOWN, max(-_MAX_LOG_SLOWDOWN, log_slowdown))
        self._variance = variance * (1.0 - gain)


class ConformalMargin:
    """Online 1 - epsilon quantile of ln(actual / expected), by a pinball step scaled to the residuals seen.

    It is calibrated on whether frames stayed under the bound, not on missed deadlines: with misses, idle
    running would let the margin decay before the next load step (adaptive conformal inference, 2021).
    """

    __slots__ = ("_parameters", "_scale", "margin")

    def __init__(self, parameters: EstimatorParameters | None = None) -> None:
        """Starts at the initial margin of `parameters`."""
        self._parameters = parameters or EstimatorParameters()
        self.margin = self._parameters.initial_margin
        self._scale = self._parameters.initial_scale

    def update(self, actual_ms: float, expected_ms: float) -> None:
        """Learns from one frame; times that are not finite and above 0 are skipped."""
        if not (usable_time(actual_ms) and usable_time(expected_ms)):
            return
        p = self._parameters
        residual = math.log(actual_ms) - math.log(expected_ms)
        self._scale = max(p.minimum_scale, p.scale_decay * self._scale, min(abs(residual), p.maximum_residual))
        above = 1.0 if residual > self.margin else 0.0
        margin = self.margin + p.step * self._scale * (above - p.epsilon)
        self.margin = min(p.maximum_margin, max(p.minimum_margin, margin))

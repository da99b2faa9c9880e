"""What the controller is held against: fixed depths, feedback on depth, and other predictions of a slowdown."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from anydepth_perception.depth.controller import DepthController
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.depth.simulation.plan_once import ConformalMargin, SlowdownFilter
from anydepth_perception.depth.simulation.play import Policy
from anydepth_perception.depth.simulation.trace import Network
from anydepth_perception.depth.space import DepthConfig


class PlanOnce:
    """A policy that picks a rung of the ladder when a frame begins, and stays with it."""

    def __init__(self, network: Network) -> None:
        """Base to full, as the network's profile has them."""
        space = network.space
        self.host_ms = network.preprocess_ms + network.postprocess_ms
        rungs = [
            Rung(config, space.total(network.step_ms, config), value)
            for config, value in network.average_precision.items()
        ]
        self.ladder = Ladder.pareto(rungs, base=space.base, full=space.full)
        self.rung = self.ladder.base
        self.budget_ms = math.inf

    def open(self, budget_ms: float | None) -> DepthConfig:
        """Picks the rung."""
        self.budget_ms = math.inf if budget_ms is None else budget_ms
        self.rung = self.pick()
        return self.rung.config

    def decide(self, point: str, elapsed_ms: float) -> DepthConfig:
        """The same rung."""
        return self.rung.config

    def end(self, inference_ms: float, host_ms: float | None = None) -> None:
        """Learns."""
        total_ms = inference_ms + (host_ms or 0.0)
        self.learn(total_ms, total_ms / (self.rung.latency_ms + self.host_ms))

    def pick(self) -> Rung:
        """The rung of the frame that begins."""
        raise NotImplementedError

    def learn(self, total_ms: float, slowdown: float) -> None:
        """What the frame took, and that over what was profiled for it."""

    def fitting(self, slowdown: float) -> Rung:
        """The deepest rung that fits at a slowdown, or base."""
        return self.ladder.deepest_within(self.budget_ms / slowdown - self.host_ms) or self.ladder.base


class Fixed(PlanOnce):
    """Full or base, always."""

    def __init__(self, network: Network, *, full: bool) -> None:
        """`full`, or else base."""
        super().__init__(network)
        self._rung = self.ladder.full if full else self.ladder.base

    def pick(self) -> Rung:
        """That rung."""
        return self._rung


class Aimd(PlanOnce):
    """Additive increase, multiplicative decrease: one rung deeper after eight frames in time, half after a miss."""

    _index, _in_time = 0.0, 0

    def pick(self) -> Rung:
        """The rung that it is at."""
        return self.ladder.rungs[int(self._index)]

    def learn(self, total_ms: float, slowdown: float) -> None:
        """Deeper or shallower."""
        self._in_time += 1
        if total_ms > self.budget_ms:
            self._index, self._in_time = self._index / 2.0, 0
        elif self._in_time >= 8:
            self._index, self._in_time = min(len(self.ladder) - 1.0, self._index + 1.0), 0


class ProportionalIntegral(PlanOnce):
    """PI control of the frame's time towards 0.9 of the budget, by the time that a rung may take (Kang, 2024)."""

    _allowed_ms, _error_ms = 0.0, 0.0

    def pick(self) -> Rung:
        """The deepest rung within what is allowed."""
        return self.ladder.deepest_within(self._allowed_ms) or self.ladder.base

    def learn(self, total_ms: float, slowdown: float) -> None:
        """The velocity form, limited to the ladder."""
        error_ms = 0.9 * self.budget_ms - total_ms
        step_ms = 0.2 * (error_ms - self._error_ms) + 0.2 * error_ms
        low, high = self.ladder.base.latency_ms, self.ladder.full.latency_ms
        self._allowed_ms = min(high, max(low, self._allowed_ms + step_ms))
        self._error_ms = error_ms


class AlertStyle(PlanOnce):
    """One global slowdown by a Kalman filter, and a Gaussian for its tail (after ALERT, ATC 2020)."""

    _mean, _variance, _spread = 1.2, 0.1, 0.01

    def pick(self) -> Rung:
        """The most expected AP."""
        deviation = math.sqrt(self._spread)

        def worth(rung: Rung) -> float:
            bound = self.budget_ms / (rung.latency_ms + self.host_ms)
            return rung.average_precision * 0.5 * math.erfc((self._mean - bound) / deviation / math.sqrt(2.0))

        return max(self.ladder.rungs, key=lambda rung: (worth(rung), -rung.latency_ms))

    def learn(self, total_ms: float, slowdown: float) -> None:
        """Kalman for the mean, and a moving mean for the spread."""
        variance = self._variance + 1e-3
        gain = variance / (variance + 1e-2)
        residual = slowdown - self._mean
        self._mean += gain * residual
        self._variance = (1.0 - gain) * variance
        self._spread = 0.95 * self._spread + 0.05 * residual * residual + 1e-6


class WindowMaximum(PlanOnce):
    """The largest slowdown of the last ten frames (as Clockwork predicts, OSDI 2020)."""

    def __init__(self, network: Network) -> None:
        """Starts at 1.2."""
        super().__init__(network)
        self._last = deque([1.2], maxlen=10)

    def pick(self) -> Rung:
        """What fits at that slowdown."""
        return self.fitting(max(self._last))

    def learn(self, total_ms: float, slowdown: float) -> None:
        """One more."""
        self._last.append(slowdown)


class ConformalPlanOnce(PlanOnce):
    """The controller that the package had before: a slowdown by a Kalman filter, and a conformal 1 % margin."""

    def __init__(self, network: Network) -> None:
        """As it was."""
        super().__init__(network)
        self._filter, self._margin = SlowdownFilter(), ConformalMargin()

    def pick(self) -> Rung:
        """What fits within the margin."""
        return self.fitting(math.exp(self._filter.log_slowdown + self._margin.margin))

    def learn(self, total_ms: float, slowdown: float) -> None:
        """The margin, then the slowdown."""
        self._margin.update(slowdown, math.exp(self._filter.log_slowdown))
        self._filter.update(slowdown, 1.0)


BASELINES: dict[str, Callable[[Network], Policy]] = {
    "full": lambda network: Fixed(network, full=True),
    "base": lambda network: Fixed(network, full=False),
    "aimd": Aimd,
    "pi": ProportionalIntegral,
    "alert_style": AlertStyle,
    "window_maximum": WindowMaximum,
    "plan_once": ConformalPlanOnce,
}
"""By name; each is made for a network."""


def controller(network: Network, points: Sequence[str] = ()) -> DepthController:
    """The controller for a network, deciding at `points` too."""
    return DepthController(
        network.space,
        network.step_ms,
        network.average_precision,
        preprocess_ms=network.preprocess_ms,
        postprocess_ms=network.postprocess_ms,
        points=points,
    )

"""The depth controller: per frame, the deepest rung that will meet the deadline under the load of the moment."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.depth.estimator import ConformalMargin, EstimatorParameters, SlowdownFilter
from anydepth_perception.depth.ladder import Ladder, Rung

AUTO = "auto"


class DepthPolicy(Protocol):
    """What the node asks of whoever chooses the depth: once before and once after each frame, and for diagnostics."""

    @property
    def ladder(self) -> Ladder:
        """The rungs to choose from."""
        ...

    @property
    def state(self) -> ControllerState:
        """What the policy believes now."""
        ...

    def choose(self, budget_ms: float | None) -> Rung:
        """The rung to run with `budget_ms` left until the frame's deadline; None without a deadline."""
        ...

    def observe(self, rung: Rung, inference_ms: float, host_ms: float | None = None) -> None:
        """Learns from a frame that ran `rung`."""
        ...

    def set_depth(self, depth: str | DepthConfig) -> None:
        """Fixes the depth, or lets the policy choose it (`auto`)."""
        ...


@dataclass(frozen=True)
class ControllerState:
    """What the controller believes now, for diagnostics.

    depth: `auto` or the fixed configuration; slowdowns: actual over profiled time; margin: by which factor a
    frame may exceed its expected time; feasible: whether the last choice was expected to meet its deadline.
    """

    depth: str
    inference_slowdown: float
    host_slowdown: float
    margin: float
    feasible: bool


class DepthController:
    """Chooses one rung per frame, before it runs (plan-once; after QDC: log-slowdown filter + conformal margin).

    A frame at a rung is expected to take host_ms * host slowdown + latency_ms * inference slowdown, and bounded
    by that times the margin; the deepest rung whose bound fits the budget runs. The host and the inference have a
    slowdown each, since load hits them differently, and one margin, since the deadline is on their sum.

    `choose` and `observe` belong to one thread. `set_depth`, `depth` and `state` may be used from others: they
    swap or read single references.
    """

    def __init__(
        self,
        ladder: Ladder,
        host_ms: float,
        *,
        profiled: Iterable[Rung] = (),
        parameters: EstimatorParameters | None = None,
    ) -> None:
        """Starts in `auto`.

        Args:
            ladder: rungs to choose from.
            host_ms: profiled time of a frame beside inference, milliseconds, >= 0.
            profiled: further rungs with known latency, of use when `set_depth` fixes one of them.
            parameters: constants of the estimates.

        Raises:
            ValueError: `host_ms` is negative or not finite.
        """
        if not 0.0 <= host_ms < math.inf:
            raise ValueError(f"host_ms is {host_ms}, expected a finite time of at least 0 ms")
        self.ladder = ladder
        self._host_ms = host_ms
        self._known = {rung.config: rung for rung in (*profiled, *ladder.rungs)}
        self._num_exits = ladder.full.config.exit or 0
        self._inference = SlowdownFilter(parameters)
        self._host = SlowdownFilter(parameters)
        self._margin = ConformalMargin(parameters)
        self._fixed: Rung | None = None
        self._feasible = True

    @property
    def depth(self) -> str:
        """`auto`, or the text form of the fixed configuration."""
        fixed = self._fixed
        return AUTO if fixed is None else str(fixed.config)

    @property
    def state(self) -> ControllerState:
        """What the controller believes now."""
        return ControllerState(
            depth=self.depth,
            inference_slowdown=self._inference.slowdown,
            host_slowdown=self._host.slowdown,
            margin=math.exp(self._margin.margin),
            feasible=self._feasible,
        )

    def set_depth(self, depth: str | DepthConfig) -> None:
        """Sets `auto`, `full`, `base` or a configuration; takes effect with the next `choose`.

        Raises:
            DepthConfigError: the text is none of these, or names an exit that the detector lacks.
        """
        if depth == AUTO:
            self._fixed = None
            return
        config = DepthConfig.parse(depth, self._num_exits) if isinstance(depth, str) else depth
        self._fixed = self.rung_for(config)

    def rung_for(self, config: DepthConfig) -> Rung:
        """The profiled rung of `config`; one of unknown latency and AP (NaN) where it was not profiled."""
        return self._known.get(config) or Rung(config, math.nan, math.nan)

    def choose(self, budget_ms: float | None) -> Rung:
        """The rung for a frame that has `budget_ms` left until its deadline.

        None means that there is no deadline (`deadline_ms: 0`): the deepest rung. A budget that even the base-net
        will not meet, 0 and less included, gets the base-net. A fixed depth is returned whatever the budget.
        """
        fixed = self._fixed
        if fixed is not None:
            self._feasible = budget_ms is None or not self.bound_ms(fixed) > budget_ms
            return fixed
        if budget_ms is None:
            self._feasible = True
            return self.ladder.full
        host_ms = self._host_ms * math.exp(self._host.log_slowdown)
        left_ms = budget_ms * math.exp(-self._margin.margin) - host_ms
        rung = self.ladder.deepest_within(left_ms * math.exp(-self._inference.log_slowdown))
        # A NaN budget compares as larger than all in bisect; it must not buy depth.
        self._feasible = rung is not None and budget_ms > 0.0
        return rung if rung is not None and self._feasible else self.ladder.base

    def observe(self, rung: Rung, inference_ms: float, host_ms: float | None = None) -> None:
        """Learns from a frame that ran `rung`.

        Args:
            rung: as returned by `choose`.
            inference_ms: time of the engine.
            host_ms: all other time that counts against the frame's budget after `choose` (resize, decode,
                publish), or None if unknown.

        Times that are not finite and above 0 teach nothing, nor does a rung of unknown latency.
        """
        expected_ms = rung.latency_ms * math.exp(self._inference.log_slowdown)
        actual_ms = inference_ms
        self._inference.update(inference_ms, rung.latency_ms)
        if host_ms is not None:
            expected_ms += self._host_ms * math.exp(self._host.log_slowdown)
            actual_ms += host_ms
            self._host.update(host_ms, self._host_ms)
        self._margin.update(actual_ms, expected_ms)

    def expected_ms(self, rung: Rung) -> float:
        """Expected time of a frame at `rung` now, host and inference; NaN where its latency is unknown."""
        return self._host_ms * self._host.slowdown + rung.latency_ms * self._inference.slowdown

    def bound_ms(self, rung: Rung) -> float:
        """Time that a frame at `rung` exceeds with a probability of about epsilon."""
        return self.expected_ms(rung) * math.exp(self._margin.margin)

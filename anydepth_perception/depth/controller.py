"""The depth controller: before and within a frame, the deepest configuration that will meet the deadline under load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anydepth_perception.depth.estimator import ConformalMargin, EstimatorParameters, SlowdownFilter
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.depth.space import ESSENTIAL, EXITS, FULL, DepthConfig, DepthSpace, Step

AUTO = "auto"

_HOPELESS = 0.8
"""A frame is beyond rescue when its budget is below this share of the base-net's time on an idle machine."""


@dataclass(frozen=True)
class ControllerState:
    """What the controller believes now, for diagnostics.

    depth: `auto` or the fixed configuration; slowdowns: actual over profiled time; margin: by which factor a
    frame may exceed its expected time; feasible: whether the last plan was expected to meet its deadline.
    """

    depth: str
    inference_slowdown: float
    host_slowdown: float
    margin: float
    feasible: bool


class DepthController:
    """Owns the choice of depth of one frame after another: `begin`, then `decide` at each decision point, then `end`.

    A frame is expected to take host_ms * host slowdown + latency_ms * inference slowdown, and bounded by that times
    the margin; `begin` plans the deepest rung whose bound fits the budget (after QDC: log-slowdown filter + conformal
    margin). The host and the inference have a slowdown each, since load hits them differently, and one margin, since
    the deadline is on their sum. `decide` shortens the plan, the latest refinement first, when the rest of it is no
    longer expected to fit; it has no margin of its own and never deepens.

    It has no clock: all times are handed in, in milliseconds. `begin`, `decide` and `end` belong to one thread.
    `set_depth`, `depth` and `state` may be used from others: they swap or read single references.
    """

    def __init__(
        self,
        space: DepthSpace,
        rungs: Iterable[Rung],
        step_ms: Mapping[Step, float],
        host_ms: float,
        *,
        postprocess_ms: float = 0.0,
        points: Sequence[str] = (),
        parameters: EstimatorParameters | None = None,
    ) -> None:
        """Starts in `auto`.

        Args:
            space: what there is to choose from.
            rungs: configurations with profiled latency, base and full among them; the Pareto-optimal ones are the
                ladder, and the others are of use when `set_depth` fixes one of them.
            step_ms: profiled time of every step of `space`, above 0.
            host_ms: profiled time of a frame beside inference, >= 0.
            postprocess_ms: the part of it that comes after the inference.
            points: entries before which `decide` is going to be asked; none where depth is decided once per frame.
            parameters: constants of the estimates.

        Raises:
            ValueError: a time is negative or not finite, or base or full is not among the rungs.
        """
        for name, value in (("host_ms", host_ms), ("postprocess_ms", postprocess_ms)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, expected a finite time of at least 0 ms")
        rungs = tuple(rungs)
        self.space = space
        self.ladder = Ladder.pareto(rungs, base=space.base, full=space.full)
        self._latency_ms = {rung.config: rung.latency_ms for rung in rungs}
        self._step_ms = step_ms
        self._host_ms = host_ms
        self._postprocess_ms = postprocess_ms
        self._points = tuple(points)
        self._inference = SlowdownFilter(parameters)
        self._host = SlowdownFilter(parameters)
        self._margin = ConformalMargin(parameters)
        self._fixed: DepthConfig | None = None
        self._feasible = True
        self._frame = _Frame(space.base, None, 1.0)

    @property
    def depth(self) -> str:
        """`auto`, or the text form of the fixed configuration."""
        fixed = self._fixed
        return AUTO if fixed is None else str(fixed)

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
        """Sets `auto`, `full`, `base` or a configuration; takes effect with the next `begin`.

        Raises:
            DepthConfigError: it is none of these, or the network has no such configuration.
        """
        if depth == AUTO:
            self._fixed = None
        else:
            config = self.space.parse(depth) if isinstance(depth, str) else depth
            self.space.check(config)
            self._fixed = config

    def begin(self, budget_ms: float | None) -> DepthConfig:
        """Plans a frame that has `budget_ms` left until its deadline, and returns the plan.

        None means that there is no deadline (`deadline_ms: 0`): the deepest rung. A budget that even the base-net
        will not meet, 0, less and NaN included, gets the base-net. A fixed depth is returned whatever the budget.
        """
        plan = self._plan(budget_ms)
        self._frame = _Frame(plan, budget_ms, self.latency_ms(plan) / self.space.total(self._step_ms, plan))
        return plan

    @property
    def may_change(self) -> bool:
        """Whether `decide` may say something else than the plan of the frame that has begun."""
        return bool(self._points) and self._fixed is None and self._frame.budget_ms is not None

    def decide(self, point: str, elapsed_ms: float) -> DepthConfig:
        """What to go on with before the entry `point`, `elapsed_ms` after `begin`; it agrees with what has run."""
        frame = self._frame
        if not self.may_change or frame.budget_ms is None:
            return frame.config
        if frame.inference_started_ms is None:
            frame.inference_started_ms = elapsed_ms
        done = self.space.names.index(point)
        route = self.space.route(frame.config)
        ran_ms = math.fsum(self._step_ms[step] for step in route[:done]) * frame.scale
        spent_ms = elapsed_ms - frame.inference_started_ms
        slowdown = self._inference.slowdown
        # Never below what the plan expected: a fast start is no reason to trust the rest with less.
        slowdown = max(slowdown, spent_ms / ran_ms) if ran_ms > 0.0 else slowdown
        left_ms = frame.budget_ms - self._postprocess_ms * self._host.slowdown - elapsed_ms
        frame.config = self._shortened(route, done, left_ms / (slowdown * frame.scale))
        return frame.config

    def end(self, inference_ms: float, host_ms: float | None = None) -> None:
        """Learns from the frame that has begun, which ran what `begin` planned and `decide` left of it.

        Args:
            inference_ms: time of the engines.
            host_ms: all other time that counts against the frame's budget after `begin` (resize, decode, publish), or
                None if unknown.

        Times that are not finite and above 0 teach nothing.
        """
        profiled_ms = self.latency_ms(self._frame.config, self._frame.scale)
        expected_ms = profiled_ms * math.exp(self._inference.log_slowdown)
        actual_ms = inference_ms
        self._inference.update(inference_ms, profiled_ms)
        if host_ms is not None:
            expected_ms += self._host_ms * math.exp(self._host.log_slowdown)
            actual_ms += host_ms
            self._host.update(host_ms, self._host_ms)
        self._margin.update(actual_ms, expected_ms)

    def is_hopeless(self, budget_ms: float) -> bool:
        """Whether even the base-net on an idle machine would need clearly more than `budget_ms`."""
        return budget_ms < _HOPELESS * self.ladder.base.latency_ms

    def latency_ms(self, config: DepthConfig, scale: float = 1.0) -> float:
        """Profiled inference time of `config`: as a whole where it was profiled, else the sum of its steps.

        Steps measured one by one, or estimated, do not add up to the whole exactly; `scale` corrects their sum.
        """
        known = self._latency_ms.get(config)
        return self.space.total(self._step_ms, config) * scale if known is None else known

    def expected_ms(self, config: DepthConfig) -> float:
        """Expected time of a frame at `config` now, host and inference."""
        return self._host_ms * self._host.slowdown + self.latency_ms(config) * self._inference.slowdown

    def bound_ms(self, config: DepthConfig) -> float:
        """Time that a frame at `config` exceeds with a probability of about epsilon."""
        return self.expected_ms(config) * math.exp(self._margin.margin)

    def _plan(self, budget_ms: float | None) -> DepthConfig:
        fixed = self._fixed
        if fixed is not None:
            self._feasible = budget_ms is None or not self.bound_ms(fixed) > budget_ms
            return fixed
        if budget_ms is None:
            self._feasible = True
            return self.ladder.full.config
        host_ms = self._host_ms * math.exp(self._host.log_slowdown)
        left_ms = budget_ms * math.exp(-self._margin.margin) - host_ms
        rung = self.ladder.deepest_within(left_ms * math.exp(-self._inference.log_slowdown))
        # A NaN budget compares as larger than all in bisect; it must not buy depth.
        self._feasible = rung is not None and budget_ms > 0.0
        return (rung if rung is not None and self._feasible else self.ladder.base).config

    def _shortened(self, route: Sequence[Step], done: int, affordable_ms: float) -> DepthConfig:
        """The configuration of `route` less its latest refinements, until what is left after `done` entries fits.

        An exit is dropped no lower than that of the base-net.
        """
        steps = list(route)
        left_ms = math.fsum(self._step_ms[step] for step in steps[done:])
        for index in range(len(steps) - 1, done - 1, -1):
            for shorter in self._shorter_steps(steps[index]):
                if left_ms <= affordable_ms:
                    break
                left_ms -= self._step_ms[steps[index]] - self._step_ms[shorter]
                steps[index] = shorter
        return self.space.config(steps)

    def _shorter_steps(self, step: Step) -> list[Step]:
        """What may run instead of `step` in less time, the longest first."""
        if step.way == FULL and step.entry in self.space.skippable:
            return [Step(step.entry, ESSENTIAL)]
        if step.entry == EXITS and self.space.base_exit is not None:
            return [Step(EXITS, f"d{number}") for number in range(int(step.way[1:]) - 1, self.space.base_exit - 1, -1)]
        return []


@dataclass
class _Frame:
    """The frame that has begun: what is planned of it and has run, its budget, and the scale of its steps."""

    config: DepthConfig
    budget_ms: float | None
    scale: float
    inference_started_ms: float | None = None

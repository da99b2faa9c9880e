"""The depth controller: at every decision point of a frame, what to run next so that most AP is published in time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from anydepth_perception.depth.choice import choose
from anydepth_perception.depth.completions import Node, build_tables
from anydepth_perception.depth.control_frame import FrameInProgress, MissPrice
from anydepth_perception.depth.control_settings import ControllerParameters, ControllerState
from anydepth_perception.depth.control_times import (
    checked_host_time,
    checked_precision,
    checked_steps,
    checked_totals,
    monotone,
    scaled,
)
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.depth.limits import DepthLimits
from anydepth_perception.depth.residuals import Features, Predictor, ResidualWindow
from anydepth_perception.depth.slowdowns import Slowdowns, clipped
from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step

AUTO = "auto"

_HOPELESS = 0.8
"""A frame is beyond rescue when its budget is below this share of the fastest configuration's time when idle."""

_LONGEST_MS = 1e9
"""Of a budget: more counts as this much."""


class DepthController:
    """Owns the choice of depth of one frame after another: `begin`, then `decide` at each decision point, then `end`.

    At a point the rest of the frame is expected to take its profiled time times a predicted slowdown, and the residuals
    of the last frames at this point say how far off that may be. Of the ways through the next group it takes the one
    with the highest expected AP of frames in time, where a frame that is late counts 0, as long as that adds no more
    than a bounded risk to what the fastest completion risks anyway: a miss that depth does not change costs nothing.

    It has no clock: all times are handed in, in milliseconds. `begin`, `decide`, `end` and the limits belong to one
    thread; `set_depth`, `announce`, `depth` and `state` may be used from others.
    """

    def __init__(
        self,
        space: DepthSpace,
        step_ms: Mapping[Step, float],
        average_precision: Mapping[DepthConfig, float],
        *,
        preprocess_ms: float = 0.0,
        postprocess_ms: float = 0.0,
        points: Sequence[str] = (),
        config_ms: Mapping[DepthConfig, float] | None = None,
        parameters: ControllerParameters | None = None,
    ) -> None:
        """Starts in `auto`.

        Args:
            space: what there is to choose from.
            step_ms: profiled time of every step of `space`, above 0. A full path that is said to be faster than the
                essential one, and an exit faster than the one before it, count as just as fast; see `doubts`.
            average_precision: AP in [0, 1] of the configurations that may be chosen, base and full among them.
            preprocess_ms: profiled time of a frame before its inference, >= 0.
            postprocess_ms: that behind it, >= 0.
            points: entries before which `decide` is asked, beside the start.
            config_ms: profiled time of whole configurations, where known. Without points it counts instead of the sum
                of steps; with points steps are scaled to it.
            parameters: constants.

        Raises:
            ValueError: a time or an AP is missing, not finite or out of range; it names which.
            DecisionPointError: a point is not an entry.
        """
        self.space = space
        self.parameters = parameters or ControllerParameters()
        self.doubts: list[str] = []
        """What cannot be right about the profile, one line each."""
        self._config_ms = checked_totals(space, config_ms or {}, self.doubts)
        self.step_ms = monotone(space, checked_steps(space, step_ms), self.doubts)
        if points:
            self.step_ms = scaled(space, self.step_ms, self._config_ms)
        self._latency_ms = {} if points else dict(self._config_ms)
        self._average_precision = checked_precision(space, average_precision)
        self._preprocess_ms = checked_host_time("preprocess_ms", preprocess_ms)
        self._postprocess_ms = checked_host_time("postprocess_ms", postprocess_ms)
        self._points = tuple(points)
        self._level = {name: level for level, (name, *_) in enumerate(space.groups(points))}
        number = len(self._level)
        self._windows = [ResidualWindow(self.parameters.window) for _ in range(number)]
        self._predictors = [Predictor(self.parameters.forgetting) for _ in range(number)]
        self._slowdowns = Slowdowns(self.parameters)
        self._price = MissPrice(self.parameters.penalty)
        self._frames = 0
        self._fixed: DepthConfig | None = None
        self._feasible = True
        self._limits = DepthLimits()
        self._root = self._tables(self._limits)
        self._frame = FrameInProgress(space.base, None, None)

    @property
    def depth(self) -> str:
        """`auto`, or the text form of the fixed configuration."""
        fixed = self._fixed
        return AUTO if fixed is None else str(fixed)

    @property
    def ladder(self) -> Ladder:
        """The configurations that nothing beats in both time and AP, within the limits; base and full are its ends."""
        allowed = self._limits.within(self.space, list(self._average_precision))
        rungs = [Rung(config, self.latency_ms(config), self._average_precision[config]) for config in allowed]
        base, full = (config if config in allowed else None for config in (self.space.base, self.space.full))
        return Ladder.pareto(rungs, base=base, full=full)

    @property
    def state(self) -> ControllerState:
        """What the controller believes now."""
        window = self._windows[0]
        return ControllerState(
            depth=self.depth,
            inference_slowdown=math.exp(self._slowdowns.slow),
            host_slowdown=math.exp(self._slowdowns.host),
            margin=math.exp(window.quantile(1.0 - self.parameters.miss_target)),
            feasible=self._feasible,
            price=self._price.value,
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

    def set_limits(self, limits: DepthLimits) -> None:
        """Bounds what `auto` may choose, from the next `begin` on. Raises: DepthConfigError (`DepthLimits.within`)."""
        if limits == self._limits:
            return
        self._root = self._tables(limits)
        self._limits = limits

    def set_steps(self, step_ms: Mapping[Step, float]) -> None:
        """Takes other times of all steps for the profiled ones, from the next `begin` on, as if measured that way.

        What whole configurations were measured to take counts no longer. Raises: ValueError (`checked_steps`).
        """
        full_ms = self.latency_ms(self.space.full)
        self.step_ms = monotone(self.space, checked_steps(self.space, step_ms), [])
        self._config_ms, self._latency_ms = {}, {}
        self._root = self._tables(self._limits)
        self._slowdowns.announce(math.log(full_ms / self.latency_ms(self.space.full)), host=False)

    def set_miss_target(self, miss_target: float) -> None:
        """Sets `ControllerParameters.miss_target`. Raises: ValueError, where it is not between 0 and 1."""
        if not 0.0 < miss_target < 1.0:
            raise ValueError(f"miss_target is {miss_target}, expected more than 0 and less than 1")
        if miss_target != self.parameters.miss_target:
            self.parameters = replace(self.parameters, miss_target=miss_target)

    def announce(self, log_ratio: float, *, host: bool = False) -> None:
        """Feeds forward that clocks were capped or freed: times are going to be e^`log_ratio` of what they were.

        For discrete events alone, a power mode or a clock's cap; what is not finite is left out. It counts from the
        next frame on, and may be called from any thread.
        """
        self._slowdowns.announce(log_ratio, host)

    def begin(self, budget_ms: float | None) -> DepthConfig:
        """Plans a frame that has `budget_ms` left until its deadline, and returns the plan.

        None means that there is no deadline (`deadline_ms: 0`): the deepest configuration. A budget that no
        configuration will meet, 0, less and NaN included, gets the base-net. A fixed depth is returned whatever it is.
        """
        config = self.open(budget_ms)
        frame = self._frame
        if frame.node is None:
            return config
        frame.decided_ms[0] = self._preprocess_ms * math.exp(self._slowdowns.host)
        self._decide(frame, 0, (self._slowdowns.fast - self._slowdowns.slow, 0.0, 0.0))
        return frame.config

    def open(self, budget_ms: float | None) -> DepthConfig:
        """Begins a frame like `begin`, for those who ask `decide` before the first entry: leaves the plan to that.

        Returns what runs where `may_change` is False.
        """
        self._slowdowns.follow()
        fixed = self._fixed
        if budget_ms is not None:
            budget_ms = min(budget_ms, _LONGEST_MS) if budget_ms > 0.0 else 0.0  # NaN too
        if fixed is not None or budget_ms is None:
            config = fixed or self._root.deepest_config
            self._feasible = budget_ms is None or not self.bound_ms(config) > budget_ms
            self._frame = FrameInProgress(config, budget_ms, None)
            return config
        self._frame = FrameInProgress(self._root.base_config, budget_ms, self._root)
        self._frame.post_ms = self._postprocess_ms * math.exp(self._slowdowns.host)
        return self._root.base_config

    @property
    def may_change(self) -> bool:
        """Whether `decide` may say something else than the plan of the frame that has begun."""
        return self._frame.node is not None

    def decide(self, point: str, elapsed_ms: float) -> DepthConfig:
        """What to go on with before the entry `point`, `elapsed_ms` after `begin`; it agrees with what has run.

        Asked at the first entry too, it decides anew, now that the time before the inference is known. A clock that
        jumps back counts as one that stands still.

        Raises:
            KeyError: `point` is neither a decision point nor the first entry.
        """
        frame, level = self._frame, self._level[point]
        decisions = len(frame.features)
        if frame.node is None or not (level == decisions or (level == 0 and decisions == 1)):
            return frame.config
        slow = self._slowdowns.slow
        deviation = self._slowdowns.fast - slow
        if level == 0:
            elapsed_ms = elapsed_ms if 0.0 <= elapsed_ms < math.inf else frame.decided_ms[0]
            frame.decided_ms[0] = elapsed_ms
            frame.knows_start = True
            x1 = 0.0
            if self._preprocess_ms > 0.0 and elapsed_ms > 0.0:
                x1 = clipped(math.log(elapsed_ms / self._preprocess_ms) - slow, 1.0)
            frame.features.clear()
            frame.predicted.clear()
            self._decide(frame, 0, (deviation, x1, 0.0))
            return frame.config
        last_ms = frame.decided_ms[-1]
        elapsed_ms = elapsed_ms if last_ms <= elapsed_ms < math.inf else last_ms
        ran_ms = frame.group_ms + (frame.groups_ms[-1] if frame.groups_ms else 0.0)
        frame.groups_ms.append(ran_ms)
        spent_ms, group_spent_ms = elapsed_ms - frame.decided_ms[0], elapsed_ms - last_ms
        x1 = clipped(math.log(spent_ms / ran_ms) - slow, 1.0) if spent_ms > 0.0 else 0.0
        x2 = clipped(math.log(group_spent_ms / frame.group_ms) - slow, 1.0) if group_spent_ms > 0.0 else 0.0
        frame.decided_ms.append(elapsed_ms)
        frame.node = frame.next
        self._decide(frame, level, (deviation, x1, x2))
        return frame.config

    def end(self, inference_ms: float, host_ms: float | None = None) -> None:
        """Learns from the frame that has begun, which ran what `begin` and `decide` said.

        Args:
            inference_ms: time of the engines.
            host_ms: all other time that counts against the frame's budget after `begin` (resize, decode, publish), or
                None if unknown.

        Times that are not finite and above 0 teach nothing.
        """
        frame, parameters = self._frame, self.parameters
        if not 0.0 < inference_ms < math.inf:
            return
        profiled_host_ms = self._preprocess_ms + self._postprocess_ms
        expected_post_ms = self._postprocess_ms * math.exp(self._slowdowns.host)
        post_ms = expected_post_ms
        if host_ms is not None and 0.0 < host_ms < math.inf:
            pre_ms = frame.decided_ms[0] if frame.knows_start else self._preprocess_ms * math.exp(self._slowdowns.host)
            post_ms = host_ms - pre_ms
            if profiled_host_ms > 0.0:
                self._slowdowns.observe_host(math.log(host_ms) - math.log(profiled_host_ms))
        profiled_ms = self.latency_ms(frame.config)
        slowdown = math.log(inference_ms) - math.log(profiled_ms)
        end_ms = frame.decided_ms[0] + inference_ms + max(0.0, post_ms) - expected_post_ms
        self._learn(frame, slowdown, profiled_ms, end_ms)
        self._slowdowns.observe(slowdown)
        if frame.budget_ms is not None and self._fixed is None:
            total_ms = end_ms + expected_post_ms
            saved_ms = (profiled_ms - self._root.fastest_ms) * math.exp(min(slowdown, 1.0))
            avoidable_miss = total_ms - saved_ms <= frame.budget_ms < total_ms
            self._price.observe(avoidable_miss, parameters.miss_target)

    def is_hopeless(self, budget_ms: float) -> bool:
        """Whether even the fastest configuration on an idle machine would need clearly more than `budget_ms`."""
        return budget_ms < _HOPELESS * self._root.fastest_ms

    def latency_ms(self, config: DepthConfig) -> float:
        """Profiled inference time of `config`: the sum of its steps, or without points what was profiled as a whole."""
        known = self._latency_ms.get(config)
        if known is None:
            known = self._latency_ms[config] = self.space.total(self.step_ms, config)
        return known

    def bound_ms(self, config: DepthConfig) -> float:
        """Time that a frame at `config` exceeds with a probability of about `miss_target`."""
        host_ms = (self._preprocess_ms + self._postprocess_ms) * math.exp(self._slowdowns.host)
        margin = self._windows[0].quantile(1.0 - self.parameters.miss_target)
        return host_ms + self.latency_ms(config) * math.exp(self._slowdowns.slow + margin)

    def _decide(self, frame: FrameInProgress, level: int, x: Features) -> None:
        """Chooses the way through group `level`; the choice and what it was based on go into `frame`."""
        node, parameters, window = frame.node, self.parameters, self._windows[level]
        assert node is not None and frame.budget_ms is not None
        predicted = self._predictors[level](x)
        frame.features.append(x)
        frame.predicted.append(predicted)
        left_ms = frame.budget_ms - frame.decided_ms[level] - frame.post_ms
        if left_ms > 0.0:
            log_left = math.log(left_ms) - self._slowdowns.slow - predicted
            bound = parameters.risk_per_decision * parameters.miss_target
            config, way, feasible = choose(node, window, log_left, bound, self._price.value)
        else:
            config, way, feasible = node.base_config, node.base, False
        if level == 0:
            self._feasible = feasible
        frame.config = config
        frame.group_ms = node.group_ms[way]
        frame.next = node.children[way] if node.children else None

    def _learn(self, frame: FrameInProgress, slowdown: float, profiled_ms: float, end_ms: float) -> None:
        """Takes in how much longer than profiled the rest of the frame took behind each point."""
        left_ms = profiled_ms
        self._frames += 1
        turn = self._frames % len(self._predictors)
        if frame.node is None:
            x = (self._slowdowns.fast - self._slowdowns.slow, 0.0, 0.0)
            features, predicted, decided = [x], [self._predictors[0](x)], frame.decided_ms[:1]
        else:
            features, predicted, decided = frame.features, frame.predicted, frame.decided_ms
        for level, (x, expected, decided_ms) in enumerate(zip(features, predicted, decided, strict=True)):
            if level:
                left_ms = profiled_ms - frame.groups_ms[level - 1]
            taken_ms = end_ms - decided_ms
            if taken_ms > 0.0 and left_ms > 0.0:
                residual = math.log(taken_ms) - math.log(left_ms) - self._slowdowns.slow - expected
                if abs(x[1]) < 1.0:  # a frame that stalled before the point tells nothing of ordinary ones
                    self._windows[level].add(residual)
                if level == turn:
                    self._predictors[level].observe(x, expected, residual)
                    self._predictors[level].solve()

    def _tables(self, limits: DepthLimits) -> Node:
        """Raises: DepthConfigError."""
        allowed = limits.within(self.space, list(self._average_precision))
        precision = {config: self._average_precision[config] for config in allowed}
        return build_tables(
            self.space, self.step_ms, precision, self._points, None if self._points else self._config_ms,
            foresight=self.parameters.foresight,
        )

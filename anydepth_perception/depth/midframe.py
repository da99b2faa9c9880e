"""Drops planned refinements within a frame, as soon as the rest of the plan no longer fits the deadline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import ESSENTIAL, FULL, STAGES, DepthConfig, base_exit
from anydepth_perception.depth.ladder import Rung
from anydepth_perception.depth.space import EXITS
from anydepth_perception.execution.base import Decide, Decision


class MidframePlanner:
    """Knows how the time of a frame spreads over the pipeline, and decides within frames by it.

    A plan is only ever shortened. This is the reserve of a plan made before the frame, and no more: it has no
    quantiles of its own, so what it keeps is expected to fit, with no margin beside the one the plan was made with.
    """

    def __init__(self, bundle: Bundle, segment_ms: Mapping[str, float]) -> None:
        """`segment_ms` are profiled milliseconds, above 0, of every segment that some configuration runs."""
        manifest = bundle.manifest
        self._pipeline = manifest.space.names
        self._lowest_exit = base_exit(bundle.space.num_exits)
        self._stages = {
            stage: {path: segment_ms[name] for path, name in paths.items()} for stage, paths in manifest.stages.items()
        }
        self._exits = {number: sum(segment_ms[name] for name in names) for number, names in manifest.exits.items()}
        fixed = set(manifest.space.names) - manifest.stages.keys() - {EXITS}
        self._fixed = {entry: segment_ms[entry] for entry in fixed}

    def latency_ms(self, config: DepthConfig, rung: Rung) -> float:
        """Profiled inference time of `config`: the sum of its segments, scaled to make up that of `rung` for `rung`."""
        return self._sum_ms(config, self._pipeline) * self._scale(rung)

    def decide(self, rung: Rung, budget_ms: float, reserve_ms: float, slowdown: float) -> Decide:
        """What to hand to the inference of one frame.

        Args:
            rung: the plan.
            budget_ms: time from the start of pre-processing to the deadline.
            reserve_ms: part of it that is needed after the inference.
            slowdown: expected inference time over profiled time. Within the frame, what has run says better.
        """
        scale = self._scale(rung)
        inference_started_ms: float | None = None

        def decide(decision: Decision) -> DepthConfig:
            nonlocal inference_started_ms
            if inference_started_ms is None:
                inference_started_ms = decision.elapsed_ms
            entries = [entry for group in decision.groups_left for entry in group]
            left_ms = self._sum_ms(decision.config, entries)
            ran_ms = (self._sum_ms(decision.config, self._pipeline) - left_ms) * scale
            spent_ms = decision.elapsed_ms - inference_started_ms
            # Never below what the plan expected: a fast start is no reason to trust the rest with less.
            now = max(slowdown, spent_ms / ran_ms) if ran_ms > 0.0 else slowdown
            affordable_ms = (budget_ms - reserve_ms - decision.elapsed_ms) / (now * scale)
            if left_ms <= affordable_ms:
                return decision.config
            return self._shortened(decision.config, entries, left_ms, affordable_ms)

        return decide

    def _shortened(
        self, config: DepthConfig, entries: Sequence[str], left_ms: float, affordable_ms: float
    ) -> DepthConfig:
        """Drops the latest refinements until the rest, `left_ms` of `entries`, fits; or all there are."""
        paths, exit_ = list(config.full_paths), config.exit
        for entry in reversed(entries):
            if entry == EXITS and exit_ is not None and self._lowest_exit is not None:
                while left_ms > affordable_ms and exit_ > self._lowest_exit:
                    left_ms -= self._exits[exit_] - self._exits[exit_ - 1]
                    exit_ -= 1
            elif left_ms > affordable_ms and entry in self._stages and paths[STAGES.index(entry)]:
                left_ms -= self._stages[entry][FULL] - self._stages[entry][ESSENTIAL]
                paths[STAGES.index(entry)] = False
        return DepthConfig(tuple(paths), exit_)

    def _sum_ms(self, config: DepthConfig, entries: Iterable[str]) -> float:
        total_ms = 0.0
        for entry in entries:
            if entry in self._stages:
                total_ms += self._stages[entry][config.path(entry)]
            elif entry == EXITS and config.exit is not None:
                total_ms += self._exits[config.exit]
            else:
                total_ms += self._fixed[entry]
        return total_ms

    def _scale(self, rung: Rung) -> float:
        """Segments measured one by one, or estimated, do not add up to the whole exactly."""
        return rung.latency_ms / self._sum_ms(rung.config, self._pipeline)

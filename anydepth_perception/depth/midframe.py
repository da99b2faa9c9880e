"""Drops planned refinements within a frame, as soon as the rest of the plan no longer fits the deadline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from anydepth_perception.bundle import Bundle
from anydepth_perception.bundle.manifest import EXITS
from anydepth_perception.depth.config import STAGES, DepthConfig, base_exit
from anydepth_perception.depth.ladder import Rung
from anydepth_perception.execution.base import Decide, Decision


class MidframePlanner:
    """Knows how the time of a frame spreads over the pipeline, and decides within frames by it.

    A plan is only ever shortened. This is the reserve of a plan made before the frame, and no more: it has no
    quantiles of its own, so what it keeps is expected to fit, with no margin beside the one the plan was made with.
    """

    def __init__(self, bundle: Bundle, segment_ms: Mapping[str, float]) -> None:
        """`segment_ms` are profiled milliseconds, above 0, of every segment that some configuration runs."""
        manifest = bundle.manifest
        self._pipeline = manifest.pipeline
        self._lowest_exit = base_exit(bundle.num_exits)
        self._stages = {
            stage: {path: segment_ms[name] for path, name in paths.items()} for stage, paths in manifest.stages.items()
        }
        self._exits = {number: sum(segment_ms[name] for name in names) for number, names in manifest.exits.items()}
        fixed = set(manifest.pipeline) - manifest.stages.keys() - {EXITS}
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
            affordable_ms = budget_ms - reserve_ms - decision.elapsed_ms
            return self._shortened(decision.config, entries, affordable_ms / (now * scale))

        return decide

    def _shortened(self, config: DepthConfig, entries: Sequence[str], affordable_ms: float) -> DepthConfig:
        """Drops the latest refinement until the rest fits; what has none left runs as it is, late or not."""
        while self._sum_ms(config, entries) > affordable_ms:
            shorter = self._without_latest(config, entries)
            if shorter is None:
                return config
            config = shorter
        return config

    def _without_latest(self, config: DepthConfig, entries: Sequence[str]) -> DepthConfig | None:
        paths, exit_ = config.full_paths, config.exit
        for entry in reversed(entries):
            if entry == EXITS and exit_ is not None and self._lowest_exit is not None and exit_ > self._lowest_exit:
                return DepthConfig(paths, exit_ - 1)
            if entry in self._stages and paths[STAGES.index(entry)]:
                stage = STAGES.index(entry)
                return DepthConfig((*paths[:stage], False, *paths[stage + 1 :]), exit_)
        return None

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

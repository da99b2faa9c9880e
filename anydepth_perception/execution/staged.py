"""`execution: staged`: one engine per path combination between decision points, which decides within a frame."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from anydepth_perception.backends.base import Backend, Engine
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.execution.base import Decide, Decision, Executed, allocate_image, scratch_buffers
from anydepth_perception.execution.engines import EngineReady, Progress, Taken, keep_engine, take_engine
from anydepth_perception.execution.memory import place
from anydepth_perception.execution.plan import (
    Choice,
    Group,
    Plan,
    covering_configs,
    default_decision_points,
    make_plan,
)
from anydepth_perception.execution.self_check import SelfCheck


class StagedExecution:
    """Engines of all combinations, so that any configuration runs and may change at every point; see `Execution`."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        decision_points: Sequence[str] | None = None,
        cache: EngineCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Prepares and warms everything, and binds it to one block of memory planned from the manifest.

        What had to be built is checked when all engines are ready, in configurations that use them; only then is it
        kept in the cache.

        Args:
            bundle: what to run.
            backend: what to run it with.
            decision_points: pipeline entries before which to decide, beside the start; None for the default ones.
            cache: where engines are looked for and kept; None builds all.
            progress: told of every engine and of every check.

        Raises:
            DecisionPointError: a point does not exist, or two are too far apart.
            BundleError: a segment cannot be read.
            BackendError: the backend refuses a graph, or there is no memory.
            SelfCheckError: engines that were just built put out something else than the bundle's references.
        """
        self._bundle = bundle
        self._backend = backend
        points = default_decision_points(bundle.manifest) if decision_points is None else decision_points
        plan = make_plan(bundle.manifest, points)
        self._image = allocate_image(bundle, backend)
        self._buffers = {**backend.allocate(place(plan.lives)), self._image.spec.name: self._image}
        outputs = bundle.manifest.outputs
        self._outputs = [self._buffers[name] for name in (outputs.boxes, outputs.logits)]
        self._cache = cache
        self._progress = progress
        taken = self._take_all(plan)
        self._steps: list[tuple[Group, dict[Choice, Engine]]] = [
            (group, {variant.choice: taken[variant.name].engine for variant in variants})
            for group, variants in zip(plan.groups, plan.variants, strict=True)
        ]
        self.groups = tuple(group.entries for group in plan.groups)
        self._groups_left = [self.groups[index:] for index in range(len(self.groups))]
        built = {name: engine for name, engine in taken.items() if engine.built is not None}
        if built:
            self._check(plan, set(built))
        for engine in built.values():
            keep_engine(cache, engine)

    @property
    def image(self) -> np.ndarray:
        """Where the host puts the image."""
        return self._image.host

    @property
    def boxes(self) -> np.ndarray:
        """Raw boxes of the last run."""
        return self._outputs[0].host

    @property
    def logits(self) -> np.ndarray:
        """Raw logits of the last run."""
        return self._outputs[1].host

    def ensure(self, config: DepthConfig) -> None:
        """Refuses a configuration that the bundle does not have; nothing is left to compile."""
        self._bundle.manifest.segment_names(config)

    def run(self, config: DepthConfig, decide: Decide | None = None, started: float | None = None) -> Executed:
        """Runs group after group; before each, waits for the one before it and asks `decide`, if there is one."""
        if started is None:
            started = time.perf_counter()
        self._image.upload()
        ran: list[Engine] = []
        for index, (group, engines) in enumerate(self._steps):
            if decide is not None:
                self._backend.synchronize()
                elapsed_ms = (time.perf_counter() - started) * 1e3
                chosen = decide(Decision(group.point, config, elapsed_ms, self._groups_left[index]))
                if chosen != config:
                    self._check_agreement(config, chosen, index)
                    config = chosen
            engine = engines.get(group.choice(config))
            if engine is None:
                self._bundle.manifest.segment_names(config)  # says which exits there are
                raise DepthConfigError(f"{config} has no engine for {', '.join(group.entries)}")
            engine.run()
            ran.append(engine)
        for output in self._outputs:
            output.download()
        self._backend.synchronize()
        return Executed(config, tuple([engine.last_run_ms for engine in ran]))

    def _check_agreement(self, config: DepthConfig, chosen: DepthConfig, done: int) -> None:
        for group, _ in self._steps[:done]:
            if group.choice(chosen) != group.choice(config):
                point = self._steps[done][0].point
                raise DepthConfigError(
                    f"{chosen} was chosen before {point}, but {', '.join(group.entries)} ran as {config} already; "
                    f"only what follows can change"
                )

    def _take_all(self, plan: Plan) -> dict[str, Taken]:
        """Engines by the names of their variants, warmed and bound; choices that run the same segments share one."""
        variants = {variant.name: variant for alternatives in plan.variants for variant in alternatives}
        taken: dict[str, Taken] = {}
        for name, variant in variants.items():
            ready = take_engine(self._bundle, self._backend, self._cache, variant.segments, variant.outputs, name)
            taken[name] = ready
            engine = ready.engine
            engine.bind(scratch_buffers(self._backend, (*engine.inputs, *engine.outputs)))
            engine.run()
            self._backend.synchronize()
            engine.bind(self._buffers)
            if self._progress is not None:
                cached = ready.built is None
                self._progress(EngineReady(name, len(taken), len(variants), cached, ready.size_bytes, ready.seconds))
        return taken

    def _check(self, plan: Plan, built: set[str]) -> None:
        """Runs configurations that use all engines of the variants in `built`, and compares what they put out.

        Raises:
            SelfCheckError: it is something else than the references.
        """
        check = SelfCheck(self._bundle, self._backend)
        np.copyto(self.image, check.image)
        for config in covering_configs(plan, self._bundle, built, check.configs):
            self.run(config)
            checked = check.check(config, self.boxes, self.logits)
            if self._progress is not None and checked is not None:
                self._progress(checked)
        self.image.fill(0)

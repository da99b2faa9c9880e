"""A bundle compiled for some depths: a frame in, raw outputs out, and a say in the depth at every decision point."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anydepth_perception.backends.base import Backend, Buffer, Engine, Placement
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.depth.grouping import Grouping, Way
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace
from anydepth_perception.execution.engines import EngineReady, PreparedEngine, Progress, keep_engine, prepare_engine
from anydepth_perception.execution.memory import find_lifetimes, place
from anydepth_perception.execution.self_check import SelfCheck

WHOLE, STAGED = "whole", "staged"
EXECUTIONS = (WHOLE, STAGED)
"""Accepted values of the `execution` parameter: decide once per frame, or within it too."""

Decide = Callable[[str, float], DepthConfig]
"""Asked before each group with its first entry and the milliseconds since the frame's start; returns the configuration
to go on with, which agrees with what has run already."""


def decision_points_of(execution: str, space: DepthSpace, points: Sequence[str] | None = None) -> tuple[str, ...]:
    """Entries before which the execution called `execution` decides within a frame, beside its start.

    Args:
        execution: one of `EXECUTIONS`.
        space: of the bundle.
        points: what to take instead of the default ones; None for the default ones.

    Raises:
        ValueError: the name is unknown, or points are given to whole execution.
    """
    if execution == STAGED:
        return space.default_points if points is None else tuple(points)
    if execution != WHOLE:
        raise ValueError(f"execution {execution!r} is unknown, accepted are {', '.join(EXECUTIONS)}")
    if points is not None:
        raise ValueError(f"decision_points are {tuple(points)}, but execution whole has none")
    return ()


@dataclass(frozen=True)
class Executed:
    """The configuration that really ran, and the milliseconds of each group."""

    config: DepthConfig
    group_ms: tuple[float, ...]


class Execution:
    """Engines of the ways through each group between decision points, on one block of planned memory.

    Without decision points there is one group, and `ensure` builds its engines as they are wanted. With them, all
    engines are built at once, so that any configuration runs and may change at every point. `run` belongs to one
    thread; `ensure` may be called from another.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        points: Sequence[str] = (),
        *,
        cache: EngineCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Allocates memory and, with decision points, prepares every engine.

        Args:
            bundle: what to run.
            backend: what to run it with.
            points: entries before which to decide within a frame; see `decision_points_of`.
            cache: where engines are looked for and kept; None builds all.
            progress: told of every engine and of every check.

        Raises:
            DecisionPointError: a point does not exist, or two are too far apart.
            BundleError, BackendError, SelfCheckError: see `ensure`.
        """
        manifest = bundle.manifest
        self._bundle = bundle
        self._backend = backend
        self._cache = cache
        self._progress = progress
        self._grouping = Grouping(bundle.space, points)
        self.groups = self._grouping.groups
        """Entries of each group, which a decision point precedes."""
        steps = {entry: [step for step in bundle.space.steps if step.entry == entry] for entry in bundle.space.names}
        lifetimes = find_lifetimes(
            [
                [manifest.segments[name] for entry in group for step in steps[entry] for name in manifest.parts[step]]
                for group in self.groups
            ],
            (manifest.outputs.boxes, manifest.outputs.logits),
        )
        self._placements = place(lifetimes)
        self._buffers = self._allocate()
        self._image, self._boxes, self._logits = self._ends(self._buffers)
        self._engines: dict[Way, Engine] = {}
        self._engines_of: dict[DepthConfig, tuple[Engine, ...]] = {}
        self._preparing = threading.Lock()
        if len(self.groups) > 1:
            self._prepare(list(self._grouping.all_ways()))

    @property
    def image(self) -> np.ndarray:
        """Where the host puts the image, uint8 [1, H, W, 3] RGB."""
        return self._image.host

    @property
    def boxes(self) -> np.ndarray:
        """Raw boxes float32 [1, N, 4] of the last run; overwritten by the next."""
        return self._boxes.host

    @property
    def logits(self) -> np.ndarray:
        """Raw logits float32 [1, N, C] of the last run; overwritten by the next."""
        return self._logits.host

    def ensure(self, config: DepthConfig) -> None:
        """Takes what `config` lacks out of the cache, or builds, checks and keeps it; and warms it.

        Raises:
            DepthConfigError: the bundle has no such configuration.
            BundleError: a segment cannot be read.
            BackendError: the backend refuses the graph, or there is no memory.
            SelfCheckError: an engine that was just built puts out something else than the bundle's references.
        """
        with self._preparing:
            missing = [way for way in self._grouping.ways_of(config) if way not in self._engines]
            if missing:
                self._prepare(missing, config)
            self._engines_for(config)

    def release(self, config: DepthConfig) -> None:
        """Gives up the engines that only `config` has; with decision points there are none, as all share theirs.

        A run that uses them ends undisturbed: they go with its last reference.
        """
        if len(self.groups) > 1:
            return
        with self._preparing:
            self._engines_of.pop(config, None)
            others = {id(engine) for engines in self._engines_of.values() for engine in engines}
            for way in self._grouping.ways_of(config):
                if id(self._engines.get(way)) not in others:
                    self._engines.pop(way, None)

    def run(self, config: DepthConfig, decide: Decide | None = None, started: float | None = None) -> Executed:
        """Runs on `image`, group after group, and leaves the outputs in `boxes` and `logits`.

        Args:
            config: what to run, where `decide` says nothing else.
            decide: asked before every group, when the one before it is done.
            started: when the frame began, `time.perf_counter` seconds; now if None.

        Raises:
            DepthConfigError: an engine is missing, or `decide` contradicts what has run.
            BackendError: the inference failed.
        """
        started = time.perf_counter() if started is None else started
        engines = self._engines_for(config)
        self._image.upload()
        for index, group in enumerate(self.groups):
            if decide is not None:
                self._backend.synchronize()
                chosen = decide(group[0], (time.perf_counter() - started) * 1e3)
                if chosen != config:
                    before, engines = engines, self._engines_for(chosen)
                    if engines[:index] != before[:index]:
                        ran = ", ".join(name for done in self.groups[:index] for name in done)
                        raise DepthConfigError(
                            f"{chosen} was chosen before {group[0]}, but {ran} ran as {config} already; "
                            f"only what follows can change"
                        )
                    config = chosen
            engines[index].run()
        self._boxes.download()
        self._logits.download()
        self._backend.synchronize()
        return Executed(config, tuple([engine.last_run_ms for engine in engines]))

    def _engines_for(self, config: DepthConfig) -> tuple[Engine, ...]:
        known = self._engines_of.get(config)
        if known is None:
            ways = self._grouping.ways_of(config)
            if any(way not in self._engines for way in ways):
                compiled = ", ".join(map(str, self._engines_of)) or "none"
                raise DepthConfigError(f"{config} has no engine, compiled are {compiled}")
            known = self._engines_of[config] = tuple([self._engines[way] for way in ways])
        return known

    def _allocate(self) -> dict[str, Buffer]:
        """Memory for a frame. The image shares it with nothing: what the host draws around the image stays."""
        image = self._bundle.input_spec()
        return {**self._backend.allocate(self._placements), **self._backend.allocate([Placement(image)])}

    def _ends(self, buffers: Mapping[str, Buffer]) -> tuple[Buffer, Buffer, Buffer]:
        outputs = self._bundle.manifest.outputs
        return buffers[self._bundle.manifest.input.name], buffers[outputs.boxes], buffers[outputs.logits]

    def _prepare(self, ways: Sequence[Way], config: DepthConfig | None = None) -> None:
        """Makes the engines of `ways` ready on memory of their own, so that no frame is disturbed; `config` names them.

        What had to be built is checked when all are ready, and kept in the cache only then.
        """
        scratch = self._allocate()
        prepared: dict[Way, PreparedEngine] = {}
        for way in ways:
            ready = self._prepare_one(way, config)
            prepared[way] = ready
            ready.engine.bind(scratch)
            ready.engine.run()
            self._backend.synchronize()
            if self._progress is not None:
                cached = ready.built is None
                self._progress(
                    EngineReady(ready.name, len(prepared), len(ways), cached, ready.size_bytes, ready.seconds)
                )
        built = [way for way, ready in prepared.items() if ready.built is not None]
        if built:
            self._check(built, prepared, scratch, [] if config is None else [config])
        for ready in prepared.values():
            keep_engine(self._cache, ready)
            ready.engine.bind(self._buffers)
        self._engines.update({way: ready.engine for way, ready in prepared.items()})

    def _prepare_one(self, way: Way, config: DepthConfig | None) -> PreparedEngine:
        manifest = self._bundle.manifest
        segments = [manifest.segments[name] for step in way for name in manifest.parts[step]]
        crossing = {placement.spec.name for placement in self._placements}
        outputs = tuple(spec.name for segment in segments for spec in segment.outputs if spec.name in crossing)
        name = str(config) if config is not None else "+".join(segment.name for segment in segments)
        if not outputs:
            raise BundleError(f"{self._bundle.path}: {name} writes nothing that is read later")
        return prepare_engine(self._bundle, self._backend, self._cache, segments, outputs, name)

    def _check(
        self,
        built: Iterable[Way],
        prepared: Mapping[Way, PreparedEngine],
        scratch: Mapping[str, Buffer],
        wanted: Sequence[DepthConfig],
    ) -> None:
        """Runs configurations that use all engines in `built`, and compares what they put out.

        Raises:
            SelfCheckError: it is something else than the references.
        """
        check = SelfCheck(self._bundle, self._backend)
        image, boxes, logits = self._ends(scratch)
        np.copyto(image.host, check.image)
        for config in self._grouping.covering(list(built), [*wanted, *check.configs]):
            image.upload()
            for way in self._grouping.ways_of(config):
                prepared[way].engine.run()
            boxes.download()
            logits.download()
            self._backend.synchronize()
            checked = check.check(config, boxes.host, logits.host)
            if self._progress is not None and checked is not None:
                self._progress(checked)

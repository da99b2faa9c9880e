"""`execution: whole`: one engine per depth configuration, which decides once per frame."""

from __future__ import annotations

import threading
import time

import numpy as np

from anydepth_perception.backends.base import Backend, Buffer, Engine
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.execution.base import Decide, Decision, Executed, allocate_image, scratch_buffers
from anydepth_perception.execution.engines import EngineReady, Progress, Taken, keep_engine, take_engine
from anydepth_perception.execution.self_check import SelfCheck


class WholeExecution:
    """Engines of whole configurations, all on the same input and outputs; see `Execution`."""

    def __init__(
        self, bundle: Bundle, backend: Backend, cache: EngineCache | None = None, progress: Progress | None = None
    ) -> None:
        """Builds nothing yet: `ensure` does, or takes engines from `cache`, and tells `progress`."""
        self._bundle = bundle
        self._backend = backend
        self._cache = cache
        self._progress = progress
        self._image = allocate_image(bundle, backend)
        self._buffers = {self._image.spec.name: self._image}
        self._engines: dict[DepthConfig, Engine] = {}
        self._compiling = threading.Lock()
        self.groups = (bundle.manifest.space.names,)

    @property
    def image(self) -> np.ndarray:
        """Where the host puts the image."""
        return self._image.host

    @property
    def boxes(self) -> np.ndarray:
        """Raw boxes of the last run."""
        return self._buffers[self._bundle.manifest.outputs.boxes].host

    @property
    def logits(self) -> np.ndarray:
        """Raw logits of the last run."""
        return self._buffers[self._bundle.manifest.outputs.logits].host

    def ensure(self, config: DepthConfig) -> None:
        """Takes the engine of `config` from the cache or builds, checks and keeps it; and warms it."""
        with self._compiling:
            if config in self._engines:
                return
            outputs = self._bundle.manifest.outputs
            taken = take_engine(
                self._bundle,
                self._backend,
                self._cache,
                self._bundle.segments_for(config),
                (outputs.boxes, outputs.logits),
                str(config),
            )
            engine = taken.engine
            scratch = scratch_buffers(self._backend, (*engine.inputs, *engine.outputs))
            engine.bind(scratch)
            self._first_run(config, taken, scratch)
            keep_engine(self._cache, taken)
            if not self._engines:
                self._buffers.update(scratch_buffers(self._backend, engine.outputs))
            engine.bind(self._buffers)
            self._engines[config] = engine

    def _first_run(self, config: DepthConfig, taken: Taken, scratch: dict[str, Buffer]) -> None:
        """Warms an engine that is bound to `scratch`; one that was just built is checked by the same run."""
        outputs = self._bundle.manifest.outputs
        image, boxes, logits = (scratch[name] for name in (self._image.spec.name, outputs.boxes, outputs.logits))
        check = None if taken.built is None else SelfCheck(self._bundle, self._backend)
        if check is not None:
            np.copyto(image.host, check.image)
        image.upload()
        taken.engine.run()
        boxes.download()
        logits.download()
        self._backend.synchronize()
        checked = None if check is None else check.check(config, boxes.host, logits.host)
        if self._progress is not None:
            cached = taken.built is None
            self._progress(EngineReady(taken.name, 1, 1, cached, taken.size_bytes, taken.seconds))
            if checked is not None:
                self._progress(checked)

    def run(self, config: DepthConfig, decide: Decide | None = None, started: float | None = None) -> Executed:
        """Runs one engine; `decide` is asked once, at the start."""
        if decide is not None:
            elapsed_ms = 0.0 if started is None else (time.perf_counter() - started) * 1e3
            config = decide(Decision(self.groups[0][0], config, elapsed_ms, self.groups))
        engine = self._engines.get(config)
        if engine is None:
            raise DepthConfigError(f"{config} has no engine, compiled are {', '.join(map(str, self._engines))}")
        self._image.upload()
        engine.run()
        outputs = self._bundle.manifest.outputs
        self._buffers[outputs.boxes].download()
        self._buffers[outputs.logits].download()
        self._backend.synchronize()
        return Executed(config, (engine.last_run_ms,))

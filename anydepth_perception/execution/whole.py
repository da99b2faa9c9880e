"""`execution: whole`: one engine per depth configuration, which decides once per frame."""

from __future__ import annotations

import threading
import time

import numpy as np

from anydepth_perception.backends.base import Backend, Engine
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.execution.base import Decide, Decision, Executed, allocate_image, scratch_buffers


class WholeExecution:
    """Engines of whole configurations, all on the same input and outputs; see `Execution`."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Compiles nothing yet: `ensure` does."""
        self._bundle = bundle
        self._backend = backend
        self._image = allocate_image(bundle, backend)
        self._buffers = {self._image.spec.name: self._image}
        self._engines: dict[DepthConfig, Engine] = {}
        self._compiling = threading.Lock()
        self.groups = (bundle.manifest.pipeline,)

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
        """Compiles and warms the engine of `config`, if it has none."""
        with self._compiling:
            if config in self._engines:
                return
            engine = self._backend.compile(self._bundle.compose(config))
            scratch = scratch_buffers(self._backend, (*engine.inputs, *engine.outputs))
            engine.bind(scratch)
            engine.run()
            self._backend.synchronize()
            if not self._engines:
                self._buffers.update(scratch_buffers(self._backend, engine.outputs))
            engine.bind(self._buffers)
            self._engines[config] = engine

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

"""Times of single steps: every way through every entry, measured one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from anydepth_perception.backends.base import Backend
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.grouping import Grouping
from anydepth_perception.depth.space import Step
from anydepth_perception.detection.preprocess import Preprocessor
from anydepth_perception.execution import Checked, EngineReady, Execution


class StepTimer:
    """A bundle with a decision before every entry, so that each step is an engine whose time is known."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        cache: EngineCache | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Prepares an engine for every step; `progress` is told how many are ready, and how many there are.

        Raises:
            BundleError: a segment cannot be read.
            BackendError: the backend refuses a segment, or there is not enough memory.
        """

        def tell(event: EngineReady | Checked) -> None:
            if progress is not None and isinstance(event, EngineReady):
                progress(event.done, event.total)

        source = bundle.manifest.input
        points = bundle.space.names
        self._execution = Execution(bundle, backend, points, cache=cache, progress=tell)
        self._grouping = Grouping(bundle.space, points)
        self._configs = self._grouping.covering(list(self._grouping.all_ways()), [bundle.base, bundle.full])
        self._preprocessor = Preprocessor(
            source.height,
            source.width,
            resize=source.resize,
            pad_value=source.pad_value,
            buffer=self._execution.image,
        )

    def run(self, image: np.ndarray) -> dict[Step, float]:
        """Runs as many configurations as it takes to run every step on `image`, uint8 [H, W, 3] RGB; milliseconds.

        Raises:
            BackendError: a segment failed.
        """
        self._preprocessor(image, "rgb")
        times: dict[Step, float] = {}
        for config in self._configs:
            executed = self._execution.run(config)
            for (step,), milliseconds in zip(self._grouping.ways_of(config), executed.group_ms, strict=True):
                times.setdefault(step, milliseconds)
        return {step: times[step] for step in self._grouping.space.steps}

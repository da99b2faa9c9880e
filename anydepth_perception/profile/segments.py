"""Single segments, compiled one by one and run on what the segments before them wrote."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable

import numpy as np

from anydepth_perception.backends.base import Backend, Buffer, Engine, Placement
from anydepth_perception.bundle import Bundle
from anydepth_perception.bundle.manifest import Manifest, TensorSpec
from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.detection.preprocess import Preprocessor


def used_segments(manifest: Manifest) -> tuple[str, ...]:
    """Names of the segments that some configuration runs."""
    return manifest.used_segments


class SingleSegments:
    """An engine for each segment of a bundle, and memory for all tensors between them."""

    def __init__(
        self, bundle: Bundle, backend: Backend, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Compiles every segment; `progress` is told how many are done, and how many there are.

        Raises:
            BundleError: a segment cannot be read.
            BackendError: the backend refuses a segment, or there is not enough memory.
        """
        source = bundle.manifest.input
        image = bundle.input_spec()
        self._backend = backend
        self._buffers: dict[TensorSpec, Buffer] = {image: backend.allocate([Placement(image)])[image.name]}
        self._image = self._buffers[image]
        self._preprocessor = Preprocessor(
            source.height, source.width, resize=source.resize, pad_value=source.pad_value, buffer=self._image.host
        )
        self._engines: dict[str, Engine] = {}
        names = used_segments(bundle.manifest)
        for number, name in enumerate(names, 1):
            segment = bundle.manifest.segments[name]
            outputs = tuple(spec.name for spec in segment.outputs)
            engine = backend.compile(bundle.compose_segments([segment], outputs, name))
            engine.bind({spec.name: self._buffer(spec) for spec in (*segment.inputs, *segment.outputs)})
            self._engines[name] = engine
            if progress is not None:
                progress(number, len(names))

    def run(self, image: np.ndarray) -> dict[str, float]:
        """Runs all segments in turn on `image`, uint8 [H, W, 3] RGB; milliseconds by name of segment.

        Raises:
            BackendError: a segment failed.
        """
        self._preprocessor(image, "rgb")
        self._image.upload()
        times: dict[str, float] = {}
        for name, engine in self._engines.items():
            engine.run()
            self._backend.synchronize()
            times[name] = engine.last_run_ms
        return times

    def _buffer(self, spec: TensorSpec) -> Buffer:
        if spec not in self._buffers:
            self._buffers[spec] = self._backend.allocate([Placement(spec)])[spec.name]
        return self._buffers[spec]


def estimate_segments(bundle: Bundle, rungs: Iterable[tuple[DepthConfig, float]]) -> dict[str, float]:
    """Milliseconds of each segment by its share of the GFLOPs of whole configurations, where none was measured.

    Args:
        bundle: what was measured.
        rungs: configurations and their milliseconds, at least one.
    """
    segments = [bundle.manifest.segments[name] for name in used_segments(bundle.manifest)]
    # A segment that costs no GFLOPs (it only selects or moves) takes time all the same: as much as the smallest.
    least = min((segment.gflops for segment in segments if segment.gflops), default=1.0)
    cost = {segment.name: segment.gflops or least for segment in segments}
    per_gflop = statistics.median(
        milliseconds / math.fsum(cost[name] for name in bundle.manifest.segment_names(config))
        for config, milliseconds in rungs
    )
    return {name: gflops * per_gflop for name, gflops in cost.items()}

"""The any-depth detector: an image and a depth configuration in, detections in source pixels out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from anydepth_perception.backends.base import Backend, Engine
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.postprocess import Detections, Postprocessor
from anydepth_perception.preprocess import ImageError, Preprocessor

__all__ = ["DetectionResult", "Detections", "Detector", "ImageError"]


@dataclass(frozen=True)
class DetectionResult:
    """What one call of `Detector.detect` found, at which depth, and how long each part took in milliseconds."""

    detections: Detections
    config: DepthConfig
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


class Detector:
    """One engine per depth configuration (`execution: whole`), compiled from one bundle.

    Changing the configuration between frames costs nothing. `detect` belongs to one thread; `ensure` may be
    called from another meanwhile.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, *, configs: Iterable[DepthConfig], multi_label: bool = False
    ) -> None:
        """Compiles an engine for each of `configs`; `multi_label` as in `Postprocessor` (always so for detr).

        Raises:
            BundleError: a segment cannot be read.
            BackendError: the backend refuses a graph.
        """
        manifest = bundle.manifest
        self.bundle = bundle
        self.backend = backend
        self._preprocessor = Preprocessor(
            manifest.input.height,
            manifest.input.width,
            resize=manifest.input.resize,
            pad_value=manifest.input.pad_value,
        )
        self._postprocessor = Postprocessor(
            nms=manifest.postprocess.nms,
            iou_threshold=manifest.postprocess.iou_threshold,
            multi_label=multi_label or manifest.family == "detr",
        )
        self._engines: dict[DepthConfig, Engine] = {}
        self._compiling = threading.Lock()
        for config in configs:
            self.ensure(config)

    @property
    def configs(self) -> tuple[DepthConfig, ...]:
        """Configurations that have an engine, in the order of compilation."""
        return tuple(self._engines)

    def ensure(self, config: DepthConfig) -> None:
        """Compiles and warms the engine of `config` if there is none yet.

        Raises:
            DepthConfigError: the detector has no such decoder exit.
            BundleError: a segment cannot be read.
            BackendError: the backend refuses the graph.
        """
        with self._compiling:
            if config not in self._engines:
                engine = self.backend.compile(self.bundle.compose(config))
                engine.run(np.zeros(self.bundle.input_spec().shape, np.uint8))
                self._engines[config] = engine

    def warm_up(self, repeats: int = 2) -> None:
        """Runs every engine on an empty image, so that the first frame finds all buffers allocated."""
        for engine in list(self._engines.values()):
            for _ in range(repeats):
                engine.run(self._preprocessor.buffer)

    def detect(
        self,
        image: np.ndarray,
        config: DepthConfig,
        *,
        color: str = "rgb",
        score_threshold: float | np.ndarray = 0.3,
        max_detections: int = 100,
    ) -> DetectionResult:
        """Detects objects in `image` at depth `config`.

        Args:
            image: uint8 [H, W, 3] in the order of `color`, or mono [H, W].
            config: one of `configs`.
            color: `rgb` or `bgr`.
            score_threshold: lowest score reported, in [0, 1]; one number, or one per class [C].
            max_detections: at most this many are returned, the best.

        Raises:
            ImageError: the image has a wrong type or shape, or no pixels.
            DepthConfigError: `config` has no engine; `ensure` compiles one.
            BackendError: the inference failed.
            ValueError: a threshold or max_detections is out of range.
        """
        engine = self._engines.get(config)
        if engine is None:
            raise DepthConfigError(f"{config} has no engine, compiled are {', '.join(map(str, self._engines))}")
        start = time.perf_counter()
        geometry = self._preprocessor(image, color)
        preprocessed = time.perf_counter()
        boxes, logits = engine.run(self._preprocessor.buffer)
        inferred = time.perf_counter()
        detections = self._postprocessor(
            boxes, logits, geometry, score_threshold=score_threshold, max_detections=max_detections
        )
        end = time.perf_counter()
        return DetectionResult(
            detections=detections,
            config=config,
            preprocess_ms=(preprocessed - start) * 1e3,
            inference_ms=(inferred - preprocessed) * 1e3,
            postprocess_ms=(end - inferred) * 1e3,
        )

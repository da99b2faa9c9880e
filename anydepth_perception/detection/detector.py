"""The any-depth detector: an image and a depth configuration in, detections in source pixels out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from anydepth_perception.backends.base import Backend
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.controller import DepthController
from anydepth_perception.depth.space import DepthConfig, DepthSpace
from anydepth_perception.detection.postprocess import Detections, Postprocessor
from anydepth_perception.detection.preprocess import ImageError, Preprocessor
from anydepth_perception.execution import WHOLE, Decide, Execution, Progress, decision_points_of

__all__ = ["DetectionResult", "Detections", "Detector", "ImageError"]

MOST_PASSING = 4
"""Configurations beside `Detector.configs` whose engines stay: those that were used last."""


@dataclass(frozen=True)
class DetectionResult:
    """What one call of `Detector.detect` found, at which depth, and how long each part took in milliseconds.

    `config` is what really ran. `group_ms` are the parts of the inference, one for each of `Detector.groups`.
    """

    detections: Detections
    config: DepthConfig
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    group_ms: tuple[float, ...] = ()


class Detector:
    """A bundle that is compiled to run at any depth, one frame at a time.

    Changing the configuration between frames costs nothing, and with `execution="staged"` it can change within
    one. `detect` belongs to one thread; `ensure` may be called from another meanwhile.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        configs: Iterable[DepthConfig],
        multi_label: bool = False,
        execution: str = WHOLE,
        decision_points: Sequence[str] | None = None,
        cache: EngineCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Compiles what `configs` need.

        Args:
            bundle: what to run.
            backend: what to run it with.
            configs: configurations that are kept ready, in this order.
            multi_label: as in `Postprocessor` (always so for detr).
            execution: `whole`, one engine for each of `configs`, or `staged`, engines between decision points that
                make up every configuration.
            decision_points: for `staged`, entries before which to decide, beside the start; None for the
                default ones of the bundle's space.
            cache: where engines are looked for and kept; None builds all at every start.
            progress: told of every engine that is ready and of every self-check.

        Raises:
            BundleError: a segment cannot be read.
            BackendError: the backend refuses a graph, or there is no memory.
            SelfCheckError: an engine that was just built puts out something else than the bundle's references.
            ValueError: the execution is unknown, or a decision point does not exist or is not for this execution.
        """
        manifest = bundle.manifest
        self.bundle = bundle
        self.backend = backend
        self.decision_points = decision_points_of(execution, bundle.space, decision_points)
        """Entries before which depth may change within a frame, beside its start; none in whole execution."""
        self._execution = Execution(bundle, backend, self.decision_points, cache=cache, progress=progress)
        self._preprocessor = Preprocessor(
            manifest.input.height,
            manifest.input.width,
            resize=manifest.input.resize,
            pad_value=manifest.input.pad_value,
            buffer=self._execution.image,
        )
        self._postprocessor = Postprocessor(
            nms=manifest.postprocess.nms,
            iou_threshold=manifest.postprocess.iou_threshold,
            multi_label=multi_label or manifest.postprocess.multi_label,
            class_names=manifest.class_names,
        )
        self.controller: DepthController | None = None
        """Chooses the depth where a call names a deadline; `load` makes one, of times that it measured."""
        self._configs: dict[DepthConfig, None] = {}
        self._passing: dict[DepthConfig, None] = {}  # the one that was used last is the last
        self._passing_lock = threading.Lock()
        for config in configs:
            self.ensure(config)

    def __repr__(self) -> str:
        backend = f"{self.backend.name} {self.backend.version} {self.backend.precision}"
        return f"Detector({self.bundle.name!r} on {backend}, {len(self._configs)} configurations ready)"

    @property
    def space(self) -> DepthSpace:
        """What there is to choose from."""
        return self.bundle.space

    @property
    def configs(self) -> tuple[DepthConfig, ...]:
        """Configurations that are kept ready, in the order in which they were asked for."""
        return tuple(self._configs)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Entries that run without a decision between them; one group in whole execution."""
        return self._execution.groups

    def ensure(self, config: DepthConfig) -> None:
        """Compiles and warms what `config` lacks, and adds it to `configs`.

        Raises:
            DepthConfigError: the detector has no such decoder exit.
            BundleError: a segment cannot be read.
            BackendError: the backend refuses the graph.
        """
        self._execution.ensure(config)
        self._configs[config] = None

    def is_ready(self, config: DepthConfig) -> bool:
        """Whether `detect` runs `config` without anything being compiled first; to ask counts as a use of it."""
        return bool(self.decision_points) or config in self._configs or self._count_use(config)

    def ensure_for_now(self, config: DepthConfig) -> None:
        """As `ensure`, for one of many: of those beside `configs`, the `MOST_PASSING` that were used last stay ready.

        The engines of the others are released, so that whoever tries every depth does not fill the memory.

        Raises:
            DepthConfigError, BundleError, BackendError: see `ensure`.
        """
        if config in self._configs or self.decision_points:
            return
        self._execution.ensure(config)
        with self._passing_lock:
            self._passing.pop(config, None)
            self._passing[config] = None
            unused = list(self._passing)[:-MOST_PASSING]
            for other in unused:
                del self._passing[other]
        for other in unused:
            self._execution.release(other)

    def _count_use(self, config: DepthConfig) -> bool:
        """Puts a configuration that may go behind the others; False where it is none."""
        with self._passing_lock:
            if config not in self._passing:
                return False
            self._passing[config] = self._passing.pop(config)
            return True

    def warm_up(self, repeats: int = 2) -> None:
        """Runs every configuration on an empty image, so that the first frame finds all buffers allocated."""
        for config in self.configs:
            for _ in range(repeats):
                self._execution.run(config)

    def __call__(
        self,
        image: np.ndarray,
        *,
        depth: str | DepthConfig | None = None,
        deadline_ms: float | None = None,
        color: str = "rgb",
        score_threshold: float | np.ndarray = 0.3,
        max_detections: int = 100,
    ) -> Detections:
        """Detects objects in `image`, at a depth or within a deadline; at full depth where neither is named.

        Args:
            image: uint8 [H, W, 3] in the order of `color`, or mono [H, W].
            depth: `full`, `base`, a text like `FFEE.FFEE`, or a configuration. What is not ready is compiled first.
            deadline_ms: milliseconds that this call may take, above 0: the deepest configuration runs that is expected
                to fit, by its measured time and by what the load did to the calls before.
            color: `rgb` or `bgr`.
            score_threshold: lowest score reported, in [0, 1]; one number, or one per class [C].
            max_detections: at most this many are returned, the best.

        Raises:
            ImageError, DepthConfigError, BackendError, ValueError: see `detect`; also for a depth beside a deadline, a
                deadline that is not above 0, or one for a detector that knows no times because `load` did not make it.
        """
        if deadline_ms is None:
            config = self._config(depth)
            self.ensure_for_now(config)
            return self.detect(
                image, config, color=color, score_threshold=score_threshold, max_detections=max_detections
            ).detections
        controller = self.controller
        if depth is not None:
            raise ValueError(f"depth {depth} and deadline_ms {deadline_ms} were given; give one of them")
        if not 0.0 < deadline_ms < math.inf:
            raise ValueError(f"deadline_ms is {deadline_ms}, expected a finite time above 0")
        if controller is None:
            raise ValueError("deadline_ms needs measured times: take a detector that anydepth_perception.load made")
        result = self.detect(
            image,
            controller.open(deadline_ms),
            color=color,
            score_threshold=score_threshold,
            max_detections=max_detections,
            decide=controller.decide if controller.may_change else None,
        )
        controller.end(result.inference_ms, result.preprocess_ms + result.postprocess_ms)
        return result.detections

    def _config(self, depth: str | DepthConfig | None) -> DepthConfig:
        if depth is None:
            return self.space.full
        if isinstance(depth, str):
            return self.space.parse(depth)
        self.space.check(depth)
        return self.space.executed(depth)

    def detect(
        self,
        image: np.ndarray,
        config: DepthConfig,
        *,
        color: str = "rgb",
        score_threshold: float | np.ndarray = 0.3,
        max_detections: int = 100,
        decide: Decide | None = None,
    ) -> DetectionResult:
        """Detects objects in `image` at depth `config`.

        Args:
            image: uint8 [H, W, 3] in the order of `color`, or mono [H, W].
            config: one of `configs`; in staged execution, any that the bundle has.
            color: `rgb` or `bgr`.
            score_threshold: lowest score reported, in [0, 1]; one number, or one per class [C].
            max_detections: at most this many are returned, the best.
            decide: asked at every decision point (in whole execution: once, before the inference) which
                configuration to go on with.

        Raises:
            ImageError: the image has a wrong type or shape, or no pixels.
            DepthConfigError: `config` has no engine (`ensure` compiles one), or `decide` chose one that has none or
                that contradicts what has run.
            BackendError: the inference failed.
            ValueError: a threshold or max_detections is out of range.
        """
        start = time.perf_counter()
        if self._passing:
            self._count_use(config)
        geometry = self._preprocessor(image, color)
        preprocessed = time.perf_counter()
        executed = self._execution.run(config, decide, start)
        inferred = time.perf_counter()
        detections = self._postprocessor(
            self._execution.boxes,
            self._execution.logits,
            geometry,
            score_threshold=score_threshold,
            max_detections=max_detections,
        )
        end = time.perf_counter()
        return DetectionResult(
            detections=detections,
            config=executed.config,
            preprocess_ms=(preprocessed - start) * 1e3,
            inference_ms=(inferred - preprocessed) * 1e3,
            postprocess_ms=(end - inferred) * 1e3,
            group_ms=executed.group_ms,
        )

"""Serves frames: loads what that takes, and per frame picks the depth, detects, publishes and reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.depth.controller import AUTO, DepthController, DepthPolicy
from anydepth_perception.depth.ladder import Ladder, default_configs
from anydepth_perception.depth.profile import Profile, ProfileError, load_or_measure
from anydepth_perception.detector import DetectionResult, Detector, ImageError
from anydepth_perception.frame_statistics import FrameReport, FrameStatistics
from anydepth_perception.pipeline import PendingFrame, steady_s
from anydepth_perception.ros.images import Frame, decode
from anydepth_perception.ros.parameters import Settings

_HOPELESS = 0.8
"""A frame is beyond rescue when its budget is below this share of the base-net's time on an idle machine."""


@dataclass(frozen=True)
class Model:
    """A bundle that is ready to serve: its detector with compiled engines, and the controller of their depth."""

    bundle: Bundle
    detector: Detector
    controller: DepthPolicy

    @property
    def backend(self) -> str:
        """Backend, its version and precision, in words."""
        backend = self.detector.backend
        return f"{backend.name} {backend.version} {backend.precision}"


def load_model(settings: Settings, progress: Callable[[str], object]) -> Model:
    """Loads the bundle, compiles and warms the engines of a ladder, and profiles them.

    Args:
        settings: names the bundle, the backend, the profile and the depth.
        progress: is told of each step, in words.

    Raises:
        BundleError, BackendError, ProfileError, DepthConfigError: with the reason, naming the file where there is one.
    """
    bundle = Bundle.load(find_bundle(settings.model))
    backend = create_backend(settings.backend, threads=settings.threads)
    fixed = None if settings.depth == AUTO else DepthConfig.parse(settings.depth, bundle.num_exits)
    configs = default_configs(bundle)
    detector = Detector(bundle, backend, configs=())
    for number, config in enumerate(configs, 1):
        started = time.perf_counter()
        detector.ensure(config)
        seconds = time.perf_counter() - started
        progress(f"engine {number} of {len(configs)}: {config} built in {seconds:.1f} s by {backend.name}")
    detector.warm_up()
    profile, ladder = _profile_and_ladder(settings.profile, detector, progress)
    if fixed is not None:
        detector.ensure(fixed)
    controller = DepthController(ladder, profile.host_ms, profiled=profile.rungs(bundle))
    rungs = ", ".join(f"{rung.config} {rung.latency_ms:.1f} ms" for rung in controller.ladder.rungs)
    progress(f"ladder of {bundle.name}: {rungs}; host {profile.host_ms:.1f} ms")
    return Model(bundle, detector, controller)


def _profile_and_ladder(
    path: str, detector: Detector, progress: Callable[[str], object]
) -> tuple[Profile, Ladder]:
    if path:
        profile = Profile.load(Path(path).expanduser(), detector)
        if not profile.covers(detector):
            raise ProfileError(f"{path}: lacks some of the configurations of the ladder; measure again")
        origin = f"profile read from {path}"
    else:
        profile, origin = load_or_measure(detector)
    progress(origin)
    return profile, profile.ladder(detector.bundle)


class FrameOutputs(Protocol):
    """Where the results of one camera's frames go; called in the worker thread."""

    statistics: FrameStatistics

    def publish(self, pending: PendingFrame[Any], result: DetectionResult) -> None:
        """Publishes the detections: what the deadline waits for."""

    def report(
        self, pending: PendingFrame[Any], frame: Frame, result: DetectionResult, report: FrameReport
    ) -> None:
        """Everything else about a served frame."""

    def bad(self, pending: PendingFrame[Any], error: ImageError) -> None:
        """A frame that cannot be decoded."""

    def failed(self, pending: PendingFrame[Any], error: Exception) -> None:
        """A frame that the detector or the publication failed on."""


class FrameServer:
    """Serves one frame at a time, in the worker thread."""

    def __init__(
        self,
        model: Model,
        cameras: Sequence[FrameOutputs],
        settings: Callable[[], Settings],
        has_waiting_frame: Callable[[], bool],
        clock: Callable[[], float] = steady_s,
    ) -> None:
        """`settings` and `has_waiting_frame` are asked for every frame; `clock` is the steady clock, seconds."""
        self._model = model
        self._cameras = cameras
        self._settings = settings
        self._has_waiting_frame = has_waiting_frame
        self._clock = clock
        self._depth = ""

    def serve(self, pending: PendingFrame[Any]) -> None:
        """Decodes, detects, publishes and reports; a failure goes to the camera's outputs."""
        camera = self._cameras[pending.camera]
        try:
            self._serve(pending, camera)
        except ImageError as error:
            camera.bad(pending, error)
        except Exception as error:
            # Whatever one frame does to the engine or the middleware, the next frame gets its chance.
            camera.failed(pending, error)

    def _serve(self, pending: PendingFrame[Any], camera: FrameOutputs) -> None:
        settings, controller = self._settings(), self._model.controller
        self._apply_depth(settings.depth)
        queue_ms = self._age_ms(pending)
        if settings.late_policy == "drop" and self._is_hopeless(settings.deadline_ms, queue_ms):
            camera.statistics.count("dropped")
            return
        frame = decode(pending.message)
        budget_ms = settings.deadline_ms - self._age_ms(pending) if settings.deadline_ms else None
        chosen_s = self._clock()
        rung = controller.choose(budget_ms)
        result = self._model.detector.detect(
            frame.image,
            rung.config,
            color="bgr" if frame.color == "bgr" else "rgb",
            score_threshold=settings.score_threshold,
            max_detections=settings.max_detections,
        )
        camera.publish(pending, result)
        latency_ms = self._age_ms(pending)
        host_ms = (self._clock() - chosen_s) * 1e3 - result.inference_ms
        controller.observe(rung, result.inference_ms, host_ms)
        report = FrameReport(
            depth=str(result.config),
            detections=len(result.detections.scores),
            latency_ms=latency_ms,
            queue_ms=queue_ms,
            preprocess_ms=result.preprocess_ms,
            inference_ms=result.inference_ms,
            postprocess_ms=result.postprocess_ms,
            deadline_ms=settings.deadline_ms,
        )
        camera.report(pending, frame, result, report)

    def _apply_depth(self, depth: str) -> None:
        if depth == self._depth:
            return
        if depth == AUTO:
            self._model.controller.set_depth(AUTO)
        else:
            config = DepthConfig.parse(depth, self._model.bundle.num_exits)
            # An engine that is not of the ladder is compiled here; the frames of that moment are late.
            self._model.detector.ensure(config)
            self._model.controller.set_depth(config)
        self._depth = depth

    def _age_ms(self, pending: PendingFrame[Any]) -> float:
        return (self._clock() - pending.capture_s) * 1e3

    def _is_hopeless(self, deadline_ms: float, age_ms: float) -> bool:
        """Whether a newer frame waits and even an idle machine at base would miss."""
        if not deadline_ms or not self._has_waiting_frame():
            return False
        return deadline_ms - age_ms < _HOPELESS * self._model.controller.ladder.base.latency_ms

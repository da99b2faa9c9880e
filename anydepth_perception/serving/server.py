"""Serves frames: per frame picks the depth, detects, publishes and reports; changes the backend when it is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from anydepth_perception.backends import BackendError
from anydepth_perception.depth.limits import DepthLimits
from anydepth_perception.depth.refinement import Refinement
from anydepth_perception.depth.space import DepthConfigError
from anydepth_perception.detection.detector import DetectionResult, ImageError
from anydepth_perception.detection.images import CameraMessage, Frame, ReadOptions, decode
from anydepth_perception.profile.recorded_times import RecordedTimes
from anydepth_perception.serving.depth_changes import DepthChanges, in_a_thread
from anydepth_perception.serving.model import Model
from anydepth_perception.serving.scheduler import Budget, ExpectedFrame, PendingFrame
from anydepth_perception.serving.selections import CANDIDATES, Selections
from anydepth_perception.serving.settings import Settings
from anydepth_perception.serving.statistics import FrameReport, FrameStatistics
from anydepth_perception.serving.thresholds import thresholds_by_class
from anydepth_perception.serving.worker import steady_s

_LOG = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 3
"""Frames that a backend has to fail on before another one takes its place: a single failure may pass."""


FIRST_REFINED_AT, REFINED_AT_LEAST_EVERY = 300, 5000
"""Frames after which the profile is corrected by what they told: the first ones, and from then on twice as many."""

WELL_KNOWN = 0.02
"""Relative standard deviation of full over base from which on served frames settle doubts about the profile."""


class FrameOutputs(Protocol):
    """Where the results of one camera's frames go; called in the worker thread."""

    statistics: FrameStatistics

    def publish(self, pending: PendingFrame[CameraMessage], result: DetectionResult) -> None:
        """Publishes the detections: what the deadline waits for."""

    def report(
        self, pending: PendingFrame[CameraMessage], frame: Frame, result: DetectionResult, report: FrameReport
    ) -> None:
        """Everything else about a served frame."""

    def bad(self, pending: PendingFrame[CameraMessage], error: ImageError) -> None:
        """A frame that cannot be decoded."""

    def failed(self, pending: PendingFrame[CameraMessage], error: Exception) -> None:
        """A frame that the detector or the publication failed on."""


class OtherFrames(Protocol):
    """What the server asks of the frames that wait or are to come; a `Worker` and `NewestFrames` answer."""

    @property
    def has_waiting_frame(self) -> bool:
        """Whether a frame of any camera waits."""

    def shared_budget_ms(self, now_s: float, is_hopeless: Callable[[float], bool]) -> float | None:
        """What a frame may take so that others can be in time too, milliseconds; None where nothing bounds it."""

    def next_frame(self, camera: int, now_s: float) -> ExpectedFrame | None:
        """The frame that a camera is expected to send next, None where none is."""


class FrameServer:
    """Serves one frame at a time, in the worker thread."""

    def __init__(
        self,
        model: Model,
        cameras: Sequence[FrameOutputs],
        settings: Callable[[], Settings],
        others: OtherFrames,
        *,
        reload: Callable[[Model, str], Model] | None = None,
        times: RecordedTimes | None = None,
        beside: Callable[[Callable[[], None]], None] = in_a_thread,
        clock: Callable[[], float] = steady_s,
    ) -> None:
        """Serves with `model` until its backend is gone.

        Args:
            model: what to serve with.
            cameras: where the results go, by camera.
            settings: asked for every frame.
            others: the frames beside the one being served.
            reload: makes a model on another backend, given the one that fails and why; None leaves no choice.
            times: takes in what each frame took, until the backend changes.
            beside: runs work beside serving: what a depth that is set needs to be ready.
            clock: the steady clock, seconds.
        """
        self.model = model
        self._cameras = cameras
        self._settings = settings
        self._others = others
        self._reload = reload
        self._times = times
        self._clock = clock
        self._beside = beside
        self._depth = DepthChanges(model, beside)
        self._applied: Settings | None = None
        self._limits_problem = ""
        self._failures = 0
        self._refinement = self._new_refinement()
        self._refine_at = FIRST_REFINED_AT
        self._selections = Selections(model.bundle.class_names)
        self._thresholds: tuple[Settings, np.ndarray] | None = None

    @property
    def faults(self) -> list[str]:
        """What does not stop it from serving, but is not as it should be; one line each."""
        return [*self.model.faults, *filter(None, (self._depth.problem, self._limits_problem))]

    @property
    def building(self) -> str:
        """The depth whose engines are being built while another one serves; empty where none is."""
        return self._depth.building

    def serve(self, pending: PendingFrame[CameraMessage]) -> None:
        """Decodes, detects, publishes and reports; a failure goes to the camera's outputs."""
        camera = self._cameras[pending.camera]
        try:
            self._serve(pending, camera)
        except ImageError as error:
            camera.bad(pending, error)
        except BackendError as error:
            self._failures += 1
            camera.failed(pending, error)
            if self._failures >= FAILURES_IN_A_ROW:
                self._change_backend(error)
        except Exception as error:
            # Whatever one frame does to the middleware, the next frame gets its chance.
            camera.failed(pending, error)

    def _change_backend(self, failure: BackendError) -> None:
        """Takes another backend, if there is one. Meanwhile newer frames replace those that wait."""
        if self._reload is None:
            return
        try:
            self.model = self._reload(self.model, str(failure))
        except Exception as error:
            _LOG.error("no other backend can take over: %s", error)
            self._reload = None
            return
        self._depth, self._failures, self._applied = DepthChanges(self.model, self._beside), 0, None
        self._refinement, self._refine_at = self._new_refinement(), FIRST_REFINED_AT
        self._times = None

    def _serve(self, pending: PendingFrame[CameraMessage], camera: FrameOutputs) -> None:
        settings, controller = self._settings(), self.model.controller
        self._apply(settings)
        deadline_ms = settings.deadline_of_camera_ms(pending.camera)
        queue_ms = self._age_ms(pending)
        if settings.late_policy == "drop" and self._gives_way(pending, deadline_ms):
            camera.statistics.count("dropped")
            return
        frame = decode(pending.message, ReadOptions(settings.max_image_pixels, settings.mono16_bits))
        budget = self._budget(pending, deadline_ms)
        chosen_s = self._clock()
        plan = controller.open(budget.ms)
        selection = self._selections.of_camera(pending.camera, settings)
        result = self.model.detector.detect(
            selection.view(frame.image),
            plan,
            color="bgr" if frame.color == "bgr" else "rgb",
            score_threshold=self._score_threshold(settings),
            max_detections=CANDIDATES if selection.filters else settings.max_detections,
            decide=controller.decide if controller.may_change else None,
        )
        self._failures = 0
        if selection.filters or selection.region is not None:
            found = selection.select(result.detections, frame.image, settings.max_detections)
            result = replace(result, detections=found)
        camera.publish(pending, result)
        latency_ms = self._age_ms(pending)
        frame_ms = (self._clock() - chosen_s) * 1e3
        controller.end(result.inference_ms, frame_ms - result.inference_ms)
        if self._times is not None:
            self._times.add(result, frame_ms)
        self._refine(result)
        report = FrameReport(
            depth=str(result.config),
            detections=len(result.detections.scores),
            latency_ms=latency_ms,
            queue_ms=queue_ms,
            preprocess_ms=result.preprocess_ms,
            inference_ms=result.inference_ms,
            postprocess_ms=result.postprocess_ms,
            deadline_ms=deadline_ms,
            budget=budget,
        )
        camera.report(pending, frame, result, report)

    def _new_refinement(self) -> Refinement:
        return Refinement(self.model.controller.space, self.model.controller.step_ms)

    def _refine(self, result: DetectionResult) -> None:
        """Learns from a served frame, and now and then corrects the profile by all that was learnt."""
        refinement, controller = self._refinement, self.model.controller
        refinement.observe(result.config, result.inference_ms)
        if refinement.frames < self._refine_at:
            return
        # The more is known, the less there is to mend; and the controller's tables take up to tenths of a second.
        self._refine_at += min(refinement.frames, REFINED_AT_LEAST_EVERY)
        step_ms = refinement.refine()
        if step_ms is not None:
            controller.set_steps(step_ms)
            base, full = (controller.latency_ms(end) for end in (controller.space.base, controller.space.full))
            _LOG.info("profile refined by %d frames: base %.1f ms, full %.1f ms", refinement.frames, base, full)
        if refinement.uncertainty < WELL_KNOWN:
            controller.doubts.clear()  # whatever was measured at the start, served frames know better

    def _score_threshold(self, settings: Settings) -> float | np.ndarray:
        """One number, or one for each class; made anew only when a parameter has changed."""
        if not settings.class_score_thresholds:
            return settings.score_threshold
        if self._thresholds is None or self._thresholds[0] is not settings:
            names = self.model.bundle.class_names
            values = thresholds_by_class(settings.class_score_thresholds, names, settings.score_threshold)
            self._thresholds = settings, values
        return self._thresholds[1]

    def _apply(self, settings: Settings) -> None:
        """Tells the controller what has changed since the last frame."""
        self._depth.follow(settings.depth)
        if settings is self._applied:
            return
        controller = self.model.controller
        controller.set_miss_target(settings.miss_target)
        self._limits_problem = ""
        try:
            controller.set_limits(DepthLimits(settings.min_depth, settings.max_depth))
        except DepthConfigError as error:  # of the configurations that have engines none may be left
            self._limits_problem = f"min_depth and max_depth are not followed: {error}"
            _LOG.error("%s", self._limits_problem)
        self._applied = settings

    def _age_ms(self, pending: PendingFrame[CameraMessage]) -> float:
        return (self._clock() - pending.capture_s) * 1e3

    def _budget(self, pending: PendingFrame[CameraMessage], deadline_ms: float) -> Budget:
        """What a frame of a camera with this deadline may take from now on; 0 is no deadline."""
        own_ms = deadline_ms - self._age_ms(pending) if deadline_ms else None
        return Budget(own_ms, self._others.shared_budget_ms(self._clock(), self.model.controller.is_hopeless))

    def _gives_way(self, pending: PendingFrame[CameraMessage], deadline_ms: float) -> bool:
        """Whether a frame is hopeless, and another waits or the camera's next one comes before it could be done.

        The next one counts only where it has hope itself: else each frame would be given up for the one after it.
        """
        is_hopeless = self.model.controller.is_hopeless
        if not deadline_ms or not is_hopeless(deadline_ms - self._age_ms(pending)):
            return False
        if self._others.has_waiting_frame:
            return True
        now_s = self._clock()
        newer = self._others.next_frame(pending.camera, now_s)
        return (
            newer is not None
            and is_hopeless((newer.arrival_s - now_s) * 1e3)
            and not is_hopeless((newer.deadline_s - newer.arrival_s) * 1e3)
        )

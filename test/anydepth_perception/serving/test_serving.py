"""Serving a frame: the budget it leaves, the depth it gets, what is published, and what a fault does."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from anydepth_perception.backends import BackendError
from anydepth_perception.depth.limits import DepthLimits
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace
from anydepth_perception.detection.detector import DetectionResult, Detections
from anydepth_perception.detection.images import byte_array
from anydepth_perception.serving.model import Model
from anydepth_perception.serving.scheduler import Budget, ExpectedFrame, NewestFrames, PendingFrame
from anydepth_perception.serving.server import FAILURES_IN_A_ROW, FIRST_REFINED_AT, FrameServer
from anydepth_perception.serving.settings import Settings
from anydepth_perception.serving.statistics import FrameStatistics

ARRIVAL_S = 100.0
STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")
SPACE = DepthSpace.of(STAGES, STAGES, STAGES)


class Clock:
    """A steady clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = ARRIVAL_S

    def __call__(self) -> float:
        return self.now_s


class FakeController:
    """Always the same plan; remembers what it was asked and told."""

    depth = "auto"
    space = SPACE

    def __init__(self) -> None:
        self.plan = SPACE.base
        self.doubts: list[str] = []
        self.step_ms = {step: 2.0 if step.way == "full" else 1.0 for step in SPACE.steps}
        self.budgets: list[float | None] = []
        self.ended: list[tuple[float, float]] = []
        self.depths: list[object] = []
        self.may_change = False

    def set_miss_target(self, miss_target):
        self.miss_target = miss_target

    def set_limits(self, limits):
        if limits == DepthLimits("full", "base"):
            raise DepthConfigError("nothing left")
        self.limits = limits

    def open(self, budget_ms):
        self.budgets.append(budget_ms)
        return self.plan

    def decide(self, point, elapsed_ms):
        self.plan = SPACE.base
        return self.plan

    def end(self, inference_ms, host_ms=None):
        self.ended.append((inference_ms, host_ms))

    def is_hopeless(self, budget_ms):
        return budget_ms < 16.0

    def latency_ms(self, config):
        return SPACE.total(self.step_ms, config)

    def set_steps(self, step_ms):
        self.step_ms = step_ms

    def set_depth(self, depth):
        self.depths.append(depth)
        self.depth = str(depth)


class FakeDetector:
    """Takes 30 ms, of which 25 are inference, and finds one object; raises `error` instead where there is one.

    Where it is given a decision to ask for, it asks once, before the head.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ensured: list[DepthConfig] = []
        self.inference_ms = 25.0
        self.build_error: Exception | None = None
        self.error: Exception | None = None
        self.colors: list[str] = []
        self.thresholds: list[object] = []
        self.shapes: list[tuple[int, ...]] = []
        self.found = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))

    def is_ready(self, config):
        return config in self.ensured

    def ensure_for_now(self, config):
        if self.build_error is not None:
            raise self.build_error
        self.ensured.append(config)

    def detect(self, image, config, *, color, score_threshold, max_detections, decide=None):
        if self.error is not None:
            raise self.error
        self.colors.append(color)
        self.thresholds.append(score_threshold)
        self.shapes.append(image.shape)
        if decide is not None:
            config = decide("stem", 0.0)
        self.clock.now_s += 0.030
        return DetectionResult(self.found, config, 1.0, self.inference_ms, 4.0)


class FakeCamera:
    """Collects outputs; publishing takes 2 ms."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.statistics = FrameStatistics()
        self.published: list[PendingFrame] = []
        self.boxes: list[list[list[float]]] = []
        self.reports: list = []
        self.faults: list[tuple[str, Exception]] = []

    def publish(self, pending, result):
        self.clock.now_s += 0.002
        self.boxes.append(result.detections.boxes_xyxy.tolist())
        self.published.append(pending)

    def report(self, pending, frame, result, report):
        self.reports.append(report)

    def bad(self, pending, error):
        self.faults.append(("bad", error))

    def failed(self, pending, error):
        self.faults.append(("failed", error))


class FakeOthers:
    """The frames beside the one that is served, as a test sets them."""

    def __init__(self) -> None:
        self.has_waiting_frame = False
        self.shared_ms: float | None = None
        self.next: ExpectedFrame | None = None

    def shared_budget_ms(self, now_s, is_hopeless):
        return self.shared_ms

    def next_frame(self, camera, now_s):
        return self.next


class FakeTimes:
    """Collects the times of frames."""

    def __init__(self) -> None:
        self.added: list[tuple[DepthConfig, float]] = []

    def add(self, result, frame_ms):
        self.added.append((result.config, frame_ms))


class Bench:
    """A frame server on fakes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.controller, self.detector = FakeController(), FakeDetector(self.clock)
        self.camera = FakeCamera(self.clock)
        self.settings = Settings()
        self.others = FakeOthers()
        self.times = FakeTimes()
        self.reloaded: list[str] = []
        self.beside: list[Callable[[], None]] = []
        self.next_model: Model | Exception = BackendError("no other backend")
        bundle = SimpleNamespace(space=SPACE, class_names=("person", "crate"))
        self.model = Model(bundle, self.detector, self.controller, "tensorrt")
        self.server = self.serve_with(self.model)

    def serve_with(self, model: Model) -> FrameServer:
        self.server = FrameServer(
            model,
            [self.camera, self.camera],
            lambda: self.settings,
            self.others,
            reload=self.reload,
            times=self.times,
            beside=self.beside.append,
            clock=self.clock,
        )
        return self.server

    def reload(self, failing: Model, reason: str) -> Model:
        self.reloaded.append(reason)
        if isinstance(self.next_model, Exception):
            raise self.next_model
        return self.next_model

    def build(self) -> None:
        """Does what the server has asked to be done beside serving, and nothing before."""
        self.beside.pop(0)()

    def change(self, **values) -> None:
        self.settings = self.settings.updated(values, configured=True)

    def serve(self, *, age_ms=0.0, waited_ms=0.0, encoding="rgb8", camera=0):
        self.clock.now_s = ARRIVAL_S + waited_ms * 1e-3
        data = byte_array(np.zeros(12, np.uint8))
        message = SimpleNamespace(height=2, width=2, step=6, encoding=encoding, is_bigendian=0, data=data)
        self.server.serve(PendingFrame(camera, message, ARRIVAL_S, age_ms * 1e-3))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_age_and_waiting_are_charged_to_the_budget(bench):
    bench.change(deadline_ms=100.0)
    bench.serve(age_ms=10.0, waited_ms=5.0)
    assert bench.controller.budgets == [pytest.approx(85.0)]


def test_recorded_is_what_a_frame_took_from_its_plan_to_its_publication(bench):
    bench.serve(age_ms=10.0, waited_ms=5.0)
    bench.detector.error = BackendError("broken")
    bench.serve()
    assert bench.times.added == [(SPACE.base, pytest.approx(32.0))]


def test_without_a_deadline_there_is_no_budget(bench):
    bench.serve(age_ms=10.0)
    assert bench.controller.budgets == [None]


@pytest.mark.parametrize(
    ("deadline_ms", "shared_ms", "budget_ms"),
    [(100.0, 40.0, 40.0), (100.0, 95.0, 90.0), (0.0, 40.0, 40.0), (100.0, None, 90.0), (0.0, None, None)],
)
def test_budget_is_what_the_own_deadline_or_other_frames_leave(bench, deadline_ms, shared_ms, budget_ms):
    bench.change(deadline_ms=deadline_ms)
    bench.others.shared_ms = shared_ms
    bench.serve(age_ms=10.0)
    assert bench.controller.budgets == [budget_ms if budget_ms is None else pytest.approx(budget_ms)]
    own_ms = pytest.approx(90.0) if deadline_ms else None
    assert bench.camera.reports[0].budget == Budget(own_ms, shared_ms)


def test_each_camera_has_the_deadline_that_is_set_for_it_when_its_frame_is_served(bench):
    bench.settings = Settings(image_topics=("a", "b"), deadline_ms=60.0, camera_deadlines_ms=(90.0, 45.0))
    bench.serve(camera=0)
    bench.serve(camera=1)
    bench.change(camera_deadlines_ms=[0.0, 30.0])
    bench.serve(camera=0)
    bench.serve(camera=1)
    assert bench.controller.budgets == [pytest.approx(90.0), pytest.approx(45.0), None, pytest.approx(30.0)]
    assert [report.deadline_ms for report in bench.camera.reports] == [90.0, 45.0, 0.0, 30.0]


def test_report_says_how_the_frame_was_served(bench):
    bench.change(deadline_ms=46.0)
    bench.serve(age_ms=10.0, waited_ms=5.0)
    (report,) = bench.camera.reports
    assert report.depth == "EEEE.EEEE" and report.detections == 1
    assert report.latency_ms == pytest.approx(47.0) and report.queue_ms == pytest.approx(15.0)
    assert report.missed and report.deadline_ms == 46.0


def test_controller_learns_inference_and_all_other_time_after_its_choice(bench):
    bench.serve(age_ms=10.0, waited_ms=5.0)
    assert bench.controller.ended == [(25.0, pytest.approx(7.0))]


def test_depth_change_takes_effect_with_the_next_frame_where_it_is_ready(bench):
    fixed = DepthConfig.parse("FFFF.EEEE")
    bench.detector.ensured = [fixed]
    bench.serve()
    bench.change(depth="FFFF.EEEE")
    bench.serve()
    bench.serve()
    bench.change(depth="auto")
    bench.serve()
    assert bench.controller.depths == ["auto", fixed, "auto"]
    assert bench.beside == []


def test_depth_that_is_not_ready_is_built_beside_serving_and_taken_once_it_is(bench):
    bench.change(depth="FFFF.EEEE")
    bench.serve()
    bench.serve()
    assert bench.controller.depths == [] and len(bench.camera.published) == 2
    assert len(bench.beside) == 1 and bench.server.building == "FFFF.EEEE"
    bench.build()
    bench.serve()
    assert bench.controller.depths == [DepthConfig.parse("FFFF.EEEE")]
    assert bench.server.building == "" and bench.server.faults == []


def test_depth_that_cannot_be_built_is_told_once_and_the_one_before_serves_on(bench, caplog):
    bench.detector.build_error = BackendError("no memory")
    bench.change(depth="FFFF.EEEE")
    bench.serve()
    bench.build()
    for _ in range(3):
        bench.serve()
    told = "depth FFFF.EEEE cannot be used, auto serves on: no memory"
    assert bench.server.faults == [told] and [record.message for record in caplog.records] == [told]
    assert len(bench.camera.published) == 4 and bench.camera.faults == [] and bench.beside == []
    bench.change(depth="auto")
    bench.serve()
    assert bench.server.faults == []


def test_depth_that_failed_is_tried_again_when_it_is_set_again(bench):
    bench.detector.build_error = BackendError("no memory")
    bench.change(depth="FFFF.EEEE")
    bench.serve()
    bench.build()
    bench.serve()
    bench.detector.build_error = None
    bench.change(depth="auto")
    bench.serve()
    bench.change(depth="FFFF.EEEE")
    bench.serve()
    bench.build()
    bench.serve()
    assert bench.controller.depths[-1] == DepthConfig.parse("FFFF.EEEE") and bench.server.faults == []


def test_only_the_depth_that_is_asked_for_last_is_built_behind_the_one_in_progress(bench):
    for depth in ("FFFF.EEEE", "EFFF.EEEE", "EEFF.EEEE"):
        bench.change(depth=depth)
        bench.serve()
    assert len(bench.beside) == 1
    bench.build()
    bench.serve()
    bench.build()
    bench.serve()
    assert list(map(str, bench.detector.ensured)) == ["FFFF.EEEE", "EEFF.EEEE"] and bench.beside == []
    assert list(map(str, bench.controller.depths)) == ["EEFF.EEEE"]


def test_failure_of_a_depth_that_is_no_longer_asked_for_is_no_fault(bench):
    bench.detector.build_error = BackendError("no memory")
    bench.change(depth="FFFF.EEEE")
    bench.serve()
    bench.change(depth="auto")
    bench.serve()
    bench.build()
    bench.serve()
    assert bench.server.faults == []


def test_depth_of_another_network_is_told_and_fails_no_frame(bench):
    bench.settings = Settings(depth="FFF")  # set before there was a bundle to check it by
    bench.serve()
    assert len(bench.camera.published) == 1
    (fault,) = bench.server.faults
    assert fault.startswith("depth FFF cannot be used, auto serves on: ")


@pytest.mark.parametrize(("encoding", "color"), [("rgb8", "rgb"), ("bgr8", "bgr")])
def test_order_of_the_colours_reaches_the_detector(bench, encoding, color):
    bench.serve(encoding=encoding)
    assert bench.detector.colors == [color]


def test_bad_frame_is_reported_and_the_next_one_served(bench):
    bench.serve(encoding="rgb9")
    assert [kind for kind, _ in bench.camera.faults] == ["bad"]
    bench.serve()
    assert len(bench.camera.published) == 1


def test_frame_on_which_the_engine_fails_is_reported_and_the_next_one_served(bench):
    bench.detector.error = BackendError("out of memory")
    bench.serve()
    assert [kind for kind, _ in bench.camera.faults] == ["failed"]
    bench.detector.error = None
    bench.serve()
    assert len(bench.camera.published) == 1


@pytest.mark.parametrize(
    ("policy", "waiting", "age_ms", "dropped"),
    [
        ("drop", True, 85.0, True),
        ("drop", True, 83.0, False),  # 17 ms are left
        ("drop", False, 85.0, False),
        ("run_base", True, 85.0, False),
    ],
)
def test_hopeless_frame_is_dropped_only_by_policy_and_for_another_that_waits(bench, policy, waiting, age_ms, dropped):
    bench.change(deadline_ms=100.0, late_policy=policy)
    bench.others.has_waiting_frame = waiting
    bench.serve(age_ms=age_ms)
    assert bench.camera.statistics.summary(ARRIVAL_S).counts.dropped == int(dropped)
    assert len(bench.camera.published) == int(not dropped)


@pytest.mark.parametrize(
    ("arrives_in_ms", "due_in_ms", "dropped"),
    [
        (10.0, 105.0, True),
        (-5.0, 90.0, True),  # on its way, a little late
        (16.0, 111.0, False),  # by then this one is done
        (10.0, 25.0, False),  # as hopeless itself
    ],
)
def test_hopeless_frame_is_dropped_for_one_that_comes_before_it_is_done(bench, arrives_in_ms, due_in_ms, dropped):
    bench.change(deadline_ms=100.0, late_policy="drop")
    bench.others.next = ExpectedFrame(ARRIVAL_S + arrives_in_ms * 1e-3, ARRIVAL_S + due_in_ms * 1e-3)
    bench.serve(age_ms=90.0)
    assert bench.camera.statistics.summary(ARRIVAL_S).counts.dropped == int(dropped)
    assert [report.missed for report in bench.camera.reports] == ([] if dropped else [True])


@pytest.mark.parametrize(("waiting", "dropped"), [((), 0), ((1,), 1)])
def test_hopeless_frame_that_was_taken_is_dropped_while_another_camera_waits(bench, waiting, dropped):
    bench.settings = Settings(image_topics=("a", "b"), deadline_ms=100.0, late_policy="drop")
    frames = bench.others = NewestFrames(2)
    bench.serve_with(bench.model)
    for camera in waiting:
        frames.put(PendingFrame(camera, None, ARRIVAL_S, 0.0, ARRIVAL_S + 0.1))
    bench.serve(age_ms=90.0)
    assert bench.camera.statistics.summary(ARRIVAL_S).counts.dropped == dropped


def test_camera_without_a_deadline_drops_nothing(bench):
    bench.settings = Settings(image_topics=("a", "b"), camera_deadlines_ms=(0.0, 50.0), late_policy="drop")
    bench.others.has_waiting_frame = True
    bench.serve(camera=0, age_ms=5000.0)
    bench.serve(camera=1, age_ms=5000.0)
    assert [pending.camera for pending in bench.camera.published] == [0]


def test_each_camera_has_its_own_region_from_the_next_frame_on_and_boxes_are_those_of_the_image(bench):
    bench.detector.found = Detections(
        np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)
    )
    bench.settings = Settings(image_topics=("a", "b"))
    bench.serve(camera=1)
    bench.change(roi=[0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 1.0, 1.0])
    bench.serve(camera=0)
    bench.serve(camera=1)
    assert bench.detector.shapes == [(2, 2, 3), (2, 2, 3), (1, 1, 3)]
    assert bench.camera.boxes == [[[0, 0, 1, 1]], [[0, 0, 1, 1]], [[1, 1, 2, 2]]]


def test_classes_sizes_and_a_mask_leave_detections_out_of_what_is_published_and_counted(bench, tmp_path):
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.array([[255, 255], [0, 0]], np.uint8))
    boxes = np.array([[0, 0, 2, 1], [0, 1, 2, 2], [0, 0, 2, 1], [0, 0, 0.5, 1]], np.float32)
    bench.detector.found = Detections(boxes, np.ones(4, np.float32), np.array([0, 0, 1, 0], np.int32))
    bench.change(class_allowlist=["person"], mask=[str(mask)], min_box_size=1.0)
    bench.serve()
    assert bench.camera.boxes == [[[0, 0, 2, 1]]] and bench.camera.reports[0].detections == 1
    bench.change(class_allowlist=[], mask=[], min_box_size=0.0, max_detections=3)
    bench.serve()
    assert len(bench.camera.boxes[1]) == 4  # the detector bounds their number


def test_mask_that_is_gone_when_it_is_needed_fails_no_frame(bench, tmp_path, caplog):
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.zeros((2, 2), np.uint8))
    bench.change(mask=[str(mask)])
    mask.unlink()
    bench.serve()
    bench.serve()
    assert len(bench.camera.published) == 2 and len(bench.camera.boxes[0]) == 1
    assert [record.message for record in caplog.records] == [
        f"no mask is laid over the images: {mask}: cannot be read: No such file or directory"
    ]


def test_one_threshold_goes_to_the_detector_as_a_number_and_those_of_classes_as_one_for_each(bench):
    bench.serve()
    bench.change(class_score_thresholds=["crate:0.8"], score_threshold=0.2)
    bench.serve()
    assert bench.detector.thresholds[0] == 0.3
    assert bench.detector.thresholds[1].tolist() == [0.2, 0.8]
    bench.change(score_threshold=0.6)
    bench.serve()
    assert bench.detector.thresholds[2].tolist() == [0.6, 0.8]


def test_backend_that_fails_on_frames_in_a_row_is_replaced_and_the_next_frame_served(bench):
    detector, controller = FakeDetector(bench.clock), FakeController()
    bench.next_model = Model(bench.model.bundle, detector, controller, "onnxruntime")
    bench.detector.error = BackendError("the GPU is gone")
    for _ in range(FAILURES_IN_A_ROW):
        bench.serve()
    assert bench.reloaded == ["the GPU is gone"] and bench.server.model is bench.next_model
    assert [kind for kind, _ in bench.camera.faults] == ["failed"] * FAILURES_IN_A_ROW
    bench.serve()
    assert len(bench.camera.published) == 1 and detector.colors == ["rgb"]


def test_fixed_depth_holds_on_the_backend_that_took_over(bench):
    detector, controller = FakeDetector(bench.clock), FakeController()
    bench.next_model = Model(bench.model.bundle, detector, controller, "onnxruntime")
    bench.change(depth="FFFF.EEEE")
    bench.detector.error = BackendError("the GPU is gone")
    for _ in range(FAILURES_IN_A_ROW + 1):
        bench.serve()
    bench.beside.pop(0)  # on the backend that is gone
    bench.build()
    bench.serve()
    assert controller.depths == [DepthConfig.parse("FFFF.EEEE")] == detector.ensured


def test_failures_with_a_good_frame_between_them_replace_no_backend(bench):
    for _ in range(3):
        bench.detector.error = BackendError("hiccup")
        for _ in range(FAILURES_IN_A_ROW - 1):
            bench.serve()
        bench.detector.error = None
        bench.serve()
    assert bench.reloaded == []


def test_without_another_backend_the_server_asks_once_and_goes_on(bench):
    bench.detector.error = BackendError("the GPU is gone")
    for _ in range(3 * FAILURES_IN_A_ROW):
        bench.serve()
    assert len(bench.reloaded) == 1
    bench.detector.error = None
    bench.serve()
    assert len(bench.camera.published) == 1


def test_plan_is_decided_on_within_the_frame_where_it_may_change_and_what_ran_is_reported(bench):
    bench.controller.plan, bench.controller.may_change = SPACE.full, True
    bench.serve()
    assert bench.camera.reports[0].depth == "EEEE.EEEE"


def test_plan_that_may_not_change_stays(bench):
    bench.controller.plan = SPACE.full
    bench.serve()
    assert bench.camera.reports[0].depth == "FFFF.FFFF"


def test_limits_and_the_miss_target_reach_the_controller_and_contradictory_limits_change_nothing(bench, caplog):
    bench.change(min_depth="base", max_depth="FFFF.FFEE", miss_target=0.02)
    bench.serve()
    assert bench.controller.limits == DepthLimits("base", "FFFF.FFEE")
    assert bench.controller.miss_target == 0.02
    bench.change(min_depth="full", max_depth="base")
    bench.serve()
    bench.serve()
    assert bench.controller.limits == DepthLimits("base", "FFFF.FFEE")
    assert bench.server.faults == ["min_depth and max_depth are not followed: nothing left"]
    assert [record.message for record in caplog.records].count("min_depth and max_depth are not followed: nothing left")


def serve_at(bench, ratio, frames=2 * FIRST_REFINED_AT):
    """Frames at base and full in turns, of which full takes `ratio` times as long as base."""
    controller, detector = bench.controller, bench.detector
    for number in range(frames):
        controller.plan = (SPACE.base, SPACE.full)[number % 2]
        detector.inference_ms = 25.0 * (ratio if number % 2 else 1.0)
        bench.serve()


def test_served_frames_mend_a_wrong_profile_and_settle_the_doubts_about_it(bench):
    bench.controller.doubts = ["profile: its times contradict each other"]
    profiled = bench.controller.latency_ms(SPACE.full) / bench.controller.latency_ms(SPACE.base)
    assert profiled == pytest.approx(2.0)
    serve_at(bench, 1.4)
    refined = bench.controller.latency_ms(SPACE.full) / bench.controller.latency_ms(SPACE.base)
    assert refined == pytest.approx(1.4, rel=0.1)
    assert bench.controller.doubts == []


def test_right_profile_is_left_as_it_is(bench):
    before = bench.controller.step_ms
    serve_at(bench, 2.0)
    assert bench.controller.step_ms is before

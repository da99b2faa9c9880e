"""Serving a frame: the budget it leaves, the depth it gets, what is published, and what a fault does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from anydepth_perception.backends import BackendError
from anydepth_perception.bundle import BundleError
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.depth.ladder import Rung
from anydepth_perception.depth.profile import ProfileError
from anydepth_perception.detector import DetectionResult, Detections
from anydepth_perception.frame_statistics import FrameStatistics
from anydepth_perception.pipeline import PendingFrame
from anydepth_perception.ros.images import byte_array
from anydepth_perception.ros.parameters import Settings
from anydepth_perception.serving import FrameServer, Model, load_model

ARRIVAL_S = 100.0


class Clock:
    """A steady clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = ARRIVAL_S

    def __call__(self) -> float:
        return self.now_s


class FakeController:
    """Always the same rung; remembers what it was asked and told."""

    def __init__(self) -> None:
        self.rung = Rung(DepthConfig.base(), 20.0, 0.4)
        self.ladder = SimpleNamespace(base=self.rung)
        self.budgets: list[float | None] = []
        self.observed: list[tuple[float, float]] = []
        self.depths: list[object] = []

    def choose(self, budget_ms):
        self.budgets.append(budget_ms)
        return self.rung

    def observe(self, rung, inference_ms, host_ms=None):
        assert rung is self.rung
        self.observed.append((inference_ms, host_ms))

    def set_depth(self, depth):
        self.depths.append(depth)


class FakeDetector:
    """Takes 30 ms, of which 25 are inference, and finds one object; raises `error` instead where there is one."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ensured: list[DepthConfig] = []
        self.error: Exception | None = None
        self.colors: list[str] = []

    def ensure(self, config):
        self.ensured.append(config)

    def detect(self, image, config, *, color, score_threshold, max_detections):
        if self.error is not None:
            raise self.error
        self.colors.append(color)
        self.clock.now_s += 0.030
        one = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
        return DetectionResult(one, config, preprocess_ms=1.0, inference_ms=25.0, postprocess_ms=4.0)


class FakeCamera:
    """Collects outputs; publishing takes 2 ms."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.statistics = FrameStatistics()
        self.published: list[PendingFrame] = []
        self.reports: list = []
        self.faults: list[tuple[str, Exception]] = []

    def publish(self, pending, result):
        self.clock.now_s += 0.002
        self.published.append(pending)

    def report(self, pending, frame, result, report):
        self.reports.append(report)

    def bad(self, pending, error):
        self.faults.append(("bad", error))

    def failed(self, pending, error):
        self.faults.append(("failed", error))


class Bench:
    """A frame server on fakes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.controller, self.detector = FakeController(), FakeDetector(self.clock)
        self.camera = FakeCamera(self.clock)
        self.settings = Settings()
        self.waiting = False
        bundle = SimpleNamespace(num_exits=0)
        model = Model(bundle, self.detector, self.controller)
        self.server = FrameServer(model, [self.camera], lambda: self.settings, lambda: self.waiting, self.clock)

    def change(self, **values) -> None:
        self.settings = self.settings.updated(values, configured=True)

    def serve(self, *, age_ms=0.0, waited_ms=0.0, encoding="rgb8"):
        self.clock.now_s = ARRIVAL_S + waited_ms * 1e-3
        data = byte_array(np.zeros(12, np.uint8))
        message = SimpleNamespace(height=2, width=2, step=6, encoding=encoding, is_bigendian=0, data=data)
        self.server.serve(PendingFrame(0, message, ARRIVAL_S, age_ms * 1e-3))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_age_and_waiting_are_charged_to_the_budget(bench):
    bench.change(deadline_ms=100.0)
    bench.serve(age_ms=10.0, waited_ms=5.0)
    assert bench.controller.budgets == [pytest.approx(85.0)]


def test_without_a_deadline_there_is_no_budget(bench):
    bench.serve(age_ms=10.0)
    assert bench.controller.budgets == [None]


def test_report_says_how_the_frame_was_served(bench):
    bench.change(deadline_ms=46.0)
    bench.serve(age_ms=10.0, waited_ms=5.0)
    (report,) = bench.camera.reports
    assert report.depth == "EEEE.EEEE" and report.detections == 1
    assert report.latency_ms == pytest.approx(47.0) and report.queue_ms == pytest.approx(15.0)
    assert report.missed and report.deadline_ms == 46.0


def test_controller_learns_inference_and_all_other_time_after_its_choice(bench):
    bench.serve(age_ms=10.0, waited_ms=5.0)
    assert bench.controller.observed == [(25.0, pytest.approx(7.0))]


def test_depth_change_takes_effect_with_the_next_frame(bench):
    bench.serve()
    bench.change(depth="FFFF.EEEE")
    bench.serve()
    bench.serve()
    bench.change(depth="auto")
    bench.serve()
    fixed = DepthConfig.parse("FFFF.EEEE")
    assert bench.controller.depths == ["auto", fixed, "auto"]
    assert bench.detector.ensured == [fixed]


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
        ("drop", True, 83.0, False),  # 0.8 x the 20 ms of base fit into the 17 ms that are left
        ("drop", False, 85.0, False),
        ("run_base", True, 85.0, False),
    ],
)
def test_hopeless_frame_is_dropped_only_by_policy_and_for_a_newer_one(bench, policy, waiting, age_ms, dropped):
    bench.change(deadline_ms=100.0, late_policy=policy)
    bench.waiting = waiting
    bench.serve(age_ms=age_ms)
    assert bench.camera.statistics.summary(ARRIVAL_S).counts.dropped == int(dropped)
    assert len(bench.camera.published) == int(not dropped)


def test_model_of_a_tiny_bundle_is_loaded_with_a_ladder_and_progress(tiny_bundle_path):
    told: list[str] = []
    model = load_model(Settings(model=str(tiny_bundle_path)), told.append)
    configs = {rung.config for rung in model.controller.ladder.rungs}
    assert {model.bundle.base, model.bundle.full} <= configs <= set(model.detector.configs)
    assert len(model.detector.configs) >= 6
    assert any("engine 1 of" in text for text in told) and any("ladder of tiny" in text for text in told)


def test_fixed_depth_of_the_start_is_compiled_before_the_first_frame(tiny_bundle_path):
    settings = Settings(model=str(tiny_bundle_path), depth="EFEF.EFEF")
    assert DepthConfig.parse("EFEF.EFEF") in load_model(settings, lambda text: None).detector.configs


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "nowhere"}, BundleError, "nowhere"),
        ({"backend": "tensorrt"}, BackendError, "tensorrt is not available"),
        ({"profile": "/nowhere/profile.json"}, ProfileError, "/nowhere/profile.json"),
        ({"depth": "FFFF.FFFF.d3"}, DepthConfigError, "no decoder"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(tiny_bundle_path, change, error, words):
    settings = Settings(model=str(tiny_bundle_path)).updated(change, configured=False)
    with pytest.raises(error, match=words):
        load_model(settings, lambda text: None)

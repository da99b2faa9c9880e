"""A network of four stages, no neck and decoder exits: spelled, profiled, planned and served by the same robot half."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_bundle import tiny_parts_of_four_stages

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, write_bundle
from anydepth_perception.bundle.plain_run import run_plainly
from anydepth_perception.detection.detector import DetectionResult
from anydepth_perception.detection.images import byte_array
from anydepth_perception.profile import Profile, StepTimer, measure_profile
from anydepth_perception.serving.model import Model, load_model
from anydepth_perception.serving.scheduler import NewestFrames, PendingFrame
from anydepth_perception.serving.server import FrameServer
from anydepth_perception.serving.settings import Settings
from anydepth_perception.serving.statistics import FrameReport, FrameStatistics


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    manifest, segments = tiny_parts_of_four_stages()
    return write_bundle(tmp_path_factory.mktemp("four") / "four.anydepth", manifest, segments)


@pytest.fixture(scope="module", params=["whole", "staged"])
def model(request: pytest.FixtureRequest, bundle: Bundle) -> Model:
    settings = Settings(model=str(bundle.path), execution=request.param, cache_dir="none", backend="onnxruntime")
    return load_model(settings, lambda text: None)


class Camera:
    """Keeps what is published and reported."""

    def __init__(self) -> None:
        self.statistics = FrameStatistics()
        self.results: list[DetectionResult] = []
        self.reports: list[FrameReport] = []

    def publish(self, pending, result):
        self.results.append(result)

    def report(self, pending, frame, result, report):
        self.reports.append(report)

    def bad(self, pending, error):
        raise error

    def failed(self, pending, error):
        raise error


def serve(model: Model, deadline_ms: float, depth: str = "auto") -> str:
    """The depth that a frame ran at."""
    camera, settings = Camera(), Settings(deadline_ms=deadline_ms, depth=depth)
    server = FrameServer(model, [camera], lambda: settings, NewestFrames(1), clock=lambda: 10.0)
    data = byte_array(np.random.default_rng(0).integers(0, 256, 64 * 64 * 3, np.uint8))
    message = SimpleNamespace(height=64, width=64, step=192, encoding="rgb8", is_bigendian=0, data=data)
    server.serve(PendingFrame(0, message, 10.0, 0.0))
    return camera.reports[0].depth


def test_its_configurations_are_spelled_with_four_letters_and_an_exit(bundle: Bundle) -> None:
    assert [str(bundle.full), str(bundle.base)] == ["FFFF.d3", "FEEE.d2"]
    assert len(list(bundle.space.all())) == 2**3 * 3


def test_every_configuration_puts_out_what_its_graph_does(bundle: Bundle, model: Model) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    for config in bundle.space.all():
        model.detector.ensure(config)
        model.detector.detect(image, config)
        expected = run_plainly(bundle.compose(config), image[None])
        np.testing.assert_allclose(model.detector._execution.logits, expected["logits"], atol=1e-4)


def test_its_steps_are_profiled_and_the_profile_reads_back(bundle: Bundle, model: Model, tmp_path: Path) -> None:
    timer = StepTimer(bundle, create_backend("onnxruntime", threads=1))
    profile = measure_profile(model.detector, 3, steps=timer)
    assert [str(step) for step in profile.steps] == [
        "stem", "p2.full", "p3.essential", "p3.full", "p4.essential", "p4.full", "p5.essential", "p5.full",
        "exits.d1", "exits.d2", "exits.d3",
    ]
    profile.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json", model.detector) == profile


def test_frames_are_served_at_the_depth_that_the_deadline_leaves(model: Model) -> None:
    assert serve(model, 0.0) == "FFFF.d3"
    assert serve(model, 1e4) == "FFFF.d3"
    assert serve(model, 1e-3) == "FEEE.d2"
    assert serve(model, 0.0, depth="FFEF.d3") == "FFEF.d3"


def test_within_a_frame_what_is_left_of_it_is_shortened(model: Model) -> None:
    controller = model.controller
    controller.set_depth("auto")
    controller.open(1e4)
    assert str(controller.decide("stem", 0.0)) == "FFFF.d3"
    decided = [str(controller.decide(point, 1e4)) for point in model.detector.decision_points]
    assert decided[-1:] == (["FFEE.d2"] if model.detector.decision_points else [])

"""The five names of the package: the documented example runs without ROS and torch, and what is refused says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import anydepth_perception as ap

ROOT = Path(ap.__file__).resolve().parents[1]
EXAMPLE = """
import doctest, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "rclpy", "sensor_msgs", "vision_msgs", "training"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Absent())
import anydepth_perception
assert "cv2" not in sys.modules and "onnx" not in sys.modules, "the package itself loads nothing"
result = doctest.testmod(anydepth_perception, optionflags=doctest.ELLIPSIS)
print(result)
sys.exit(result.failed or not result.attempted)
"""


@pytest.fixture(scope="module")
def detector(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ap.Detector:
    return ap.load(str(tiny_bundle_path), cache_dir=str(tmp_path_factory.mktemp("engines")), threads=1)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_documented_example_runs_without_ros_and_torch(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", EXAMPLE]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_names_are_those_of_all() -> None:
    assert sorted(ap.__all__) == ["DepthConfig", "DepthSpace", "Detections", "Detector", "load"]
    assert all(getattr(ap, name).__doc__ for name in ap.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        ap.lode  # noqa: B018


def test_a_depth_that_is_not_ready_is_compiled(detector: ap.Detector, image: np.ndarray) -> None:
    config = next(config for config in detector.space.all() if not detector.is_ready(config))
    assert isinstance(detector(image, depth=config), ap.Detections)
    assert detector.is_ready(config) and config not in detector.configs


def test_detections_carry_the_names_of_their_classes(detector: ap.Detector, image: np.ndarray) -> None:
    found = detector(image, score_threshold=0.0, max_detections=3)
    assert len(found) == 3
    assert set(found.names) <= set(detector.bundle.class_names)
    assert repr(found).startswith(f"Detections(3: {found.names[0]} ")


def test_drawing_leaves_the_image_as_it_is(detector: ap.Detector, image: np.ndarray) -> None:
    found, before = detector(image, score_threshold=0.0), image.copy()
    drawn = found.draw(image)
    np.testing.assert_array_equal(image, before)
    assert (drawn != image).any()
    assert found.draw(image[:, :, 0]).shape == image.shape


def test_a_deadline_gets_what_fits_it(detector: ap.Detector, image: np.ndarray) -> None:
    assert detector.controller is not None
    detector(image, deadline_ms=1e-3)
    assert not detector.controller.state.feasible
    detector(image, deadline_ms=1e5)
    assert detector.controller.state.feasible


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"depth": "base", "deadline_ms": 5.0}, "give one of them"),
        ({"deadline_ms": 0.0}, "deadline_ms is 0.0, expected a finite time above 0"),
        ({"deadline_ms": float("nan")}, "deadline_ms is nan"),
        ({"depth": "deep"}, "'deep' is not a depth configuration"),
        ({"depth": "FFFF"}, "has 4 stages, this network has 8"),
    ],
)
def test_what_makes_no_sense_is_refused(detector: ap.Detector, image: np.ndarray, options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        detector(image, **options)


def test_a_detector_without_times_knows_no_deadline(detector: ap.Detector, image: np.ndarray) -> None:
    timeless = ap.Detector(detector.bundle, detector.backend, configs=[detector.bundle.base])
    with pytest.raises(ValueError, match=r"take a detector that anydepth_perception\.load made"):
        timeless(image, deadline_ms=20.0)


def test_what_is_printed_says_what_it_is(detector: ap.Detector) -> None:
    assert repr(detector.space.base) == "DepthConfig('EEEE.EEEE')"
    assert repr(detector).startswith("Detector('tiny' on onnxruntime ")
    assert "p2[essential|full]" in repr(detector.space)
    assert repr(detector.bundle).startswith("Bundle('tiny', ")

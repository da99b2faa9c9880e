"""The detector in staged execution: any depth at any frame, the same detections, and deadlines within reach or not."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_processes import RELIABLE, Observer, image_message, stamped, values_of
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.detection.detector import Detector
from anydepth_perception.detection.images import decode


@pytest.fixture(scope="module")
def active(module_start, node_arguments):
    """A detector that decides within frames, and the observer of all tests here."""
    module_start(
        *node_arguments(
            execution="staged", decision_points=["p4", "pan_p4"], image_qos="reliable", score_threshold=0.0
        )
    )
    observer = Observer()
    observer.wait_for_state("active")
    yield observer
    observer.close()


def report_of_next_frame(observer: Observer, reports: list[DiagnosticStatus]) -> dict[str, str]:
    """Sends one image and waits for the report on it."""
    images = observer.publisher(Image, "image_raw", RELIABLE)
    header = stamped(len(reports))
    stamp = f"{header.stamp.sec}.{header.stamp.nanosec:09d}"
    images.publish(image_message(header))

    def values() -> dict[str, str] | None:
        return next((found for found in map(values_of, reports) if found["stamp"] == stamp), None)

    found = observer.spin_until(values, "the report of the frame")
    observer.node.destroy_publisher(images)
    return found


@pytest.fixture
def reports(active) -> list[DiagnosticStatus]:
    """Reports on frames, once they come."""
    collected = active.collect(DiagnosticStatus, "/detector/frames")
    active.wait_for_publisher("/detector/frames")
    images = active.publisher(Image, "image_raw", RELIABLE)

    def come() -> bool:
        images.publish(image_message(stamped(0)))
        return bool(collected)

    active.spin_until(come, "the first report")
    active.node.destroy_publisher(images)
    return collected


def test_diagnostics_say_that_execution_is_staged(active):
    active.status(lambda status, values: values["execution"] == "staged" and values["state"] == "active", "staged")


@pytest.mark.parametrize("depth", ["FFFF.FFFF", "EEEE.EEEE", "FEFE.EFEF", "EEFE.FFEE"])
def test_any_depth_runs_from_the_frame_after_the_next_on_at_the_latest(active, reports, depth):
    assert active.set_parameter("depth", depth).successful
    report_of_next_frame(active, reports)
    assert report_of_next_frame(active, reports)["depth"] == depth


def test_detections_are_those_of_whole_execution(active, tiny_bundle_path):
    depth = DepthConfig.parse("FEFF.EFEE")
    assert active.set_parameter("depth", str(depth)).successful
    message = image_message(stamped(0), seed=5)
    detector = Detector(Bundle.load(tiny_bundle_path), create_backend("onnxruntime"), configs=[depth])
    expected = detector.detect(decode(message).image, depth, score_threshold=0.0).detections
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")
    images = active.publisher(Image, "image_raw", RELIABLE)
    for count in (1, 2):  # a new depth holds from the frame after the next on at the latest
        images.publish(message)
        active.spin_until(lambda count=count: len(detections) >= count, f"detections of frame {count}")
    found = [detection.results[0].hypothesis.score for detection in detections[-1].detections]
    np.testing.assert_allclose(found, expected.scores, atol=1e-4)


@pytest.mark.parametrize(("deadline_ms", "depth"), [(0.001, "EEEE.EEEE"), (60000.0, "FFFF.FFFF")])
def test_deadline_out_of_reach_gets_base_and_one_far_off_gets_full(active, reports, deadline_ms, depth):
    assert active.set_parameter("depth", "auto").successful
    assert active.set_parameter("deadline_ms", deadline_ms).successful
    report_of_next_frame(active, reports)
    report = report_of_next_frame(active, reports)
    assert report["depth"] == depth
    assert report["missed"] == str(deadline_ms < 1.0).lower()

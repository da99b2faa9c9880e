"""One camera of the node, on a real ROS node in this process: its health and the name of its topic."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from ros_processes import image_message, stamped
from sensor_msgs.msg import CompressedImage

from anydepth_perception.detection.images import BadImageError, Frame
from anydepth_perception.ros import camera as camera_module
from anydepth_perception.ros.camera import Camera, check_distinct
from anydepth_perception.serving.scheduler import PendingFrame
from anydepth_perception.serving.settings import ParameterError, Settings
from anydepth_perception.serving.statistics import FrameReport


def make_camera(node, settings: Settings) -> Camera:
    return Camera(
        node,
        0,
        topic="image_raw",
        prefix="",
        settings=settings,
        class_names=("person",),
        frames=SimpleNamespace(get_subscription_count=lambda: 0),
        enqueue=lambda pending: False,
        counted_age=lambda index: None,
    )


@pytest.fixture
def camera(observer):
    camera = make_camera(observer.node, Settings())
    yield camera
    camera.close()


@pytest.fixture
def camera_with_a_deadline(observer):
    camera = make_camera(observer.node, Settings(deadline_ms=80.0))
    yield camera
    camera.close()


def serve(camera: Camera, count: int, *, latency_ms: float = 20.0, age_ms: float = 5.0, message=None, gray: int = 200):
    """Lets a camera report so many served frames."""
    message = image_message(stamped(0)) if message is None else message
    frame = Frame(np.full((4, 4), gray, np.uint8), "mono")
    report = FrameReport("FFFF.FFFF", 0, latency_ms, age_ms, 1.0, latency_ms, 1.0, camera.deadline_ms)
    for _ in range(count):
        camera.report(PendingFrame(0, message, 0.0, age_ms * 1e-3), frame, None, report)


def test_frames_that_are_refused_are_warned_of_until_one_is_served(camera):
    serve(camera, 1)
    camera.bad(None, BadImageError("encoding", "encoding 'rgb9' is not supported"))
    health = camera.health()
    assert health.level == DiagnosticStatus.WARN
    assert "frames of /image_raw are refused (1 so far): encoding 'rgb9' is not supported" in health.reason
    serve(camera, 1)
    assert camera.health().level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("age_ms", "cause"), [(2500.0, "2500 ms old on arrival; is the camera's clock behind"), (5.0, "no depth is fast")]
)
def test_nearly_all_frames_being_late_is_warned_of_with_the_cause(camera_with_a_deadline, age_ms, cause):
    camera = camera_with_a_deadline
    serve(camera, 39, latency_ms=100.0 + age_ms, age_ms=age_ms)
    assert camera.health().level == DiagnosticStatus.OK
    serve(camera, 1, latency_ms=100.0 + age_ms, age_ms=age_ms)
    health = camera.health()
    assert health.level == DiagnosticStatus.WARN
    assert "40 of the last 40 frames of /image_raw missed the deadline of 80 ms" in health.reason
    assert cause in health.reason
    serve(camera, 5)
    assert camera.health().level == DiagnosticStatus.OK
    serve(camera, 40, latency_ms=100.0)
    camera.update(Settings(deadline_ms=120.0))
    assert camera.health().level == DiagnosticStatus.OK


@pytest.mark.parametrize(("gray", "is_hinted"), [(15, True), (90, False)])
def test_one_hint_at_sensors_of_fewer_than_16_bits(camera, monkeypatch, gray, is_hinted):
    said = []
    logger = SimpleNamespace(warning=said.append)
    monkeypatch.setattr(camera._node, "get_logger", lambda: logger)
    message = image_message(stamped(0))
    message.encoding = "mono16"
    serve(camera, 100, message=message, gray=gray)
    assert [text for text in said if "set mono16_bits to 12" in text] == (said if is_hinted else [])
    assert len(said) == is_hinted


def test_another_type_on_the_topic_is_named_with_what_to_set(camera, observer, monkeypatch):
    monkeypatch.setattr(camera_module, "IMAGE_TIMEOUT_S", -1.0)
    context = rclpy.Context()  # a participant of its own: one has a topic in one type alone
    rclpy.init(context=context)
    other = rclpy.create_node("other", context=context)
    other.create_publisher(CompressedImage, "image_raw", 1)
    observer.spin_until(lambda: "it publishes" in camera.health().reason, "the publisher in the graph")
    reason = camera.health().reason
    assert "it publishes sensor_msgs/msg/CompressedImage, this node subscribes to sensor_msgs/msg/Image" in reason
    assert "set image_transport to compressed" in reason
    other.destroy_node()
    rclpy.shutdown(context=context)


def test_losses_are_told_beside_that_no_image_comes(camera, monkeypatch):
    monkeypatch.setattr(camera_module, "IMAGE_TIMEOUT_S", -1.0)
    camera.statistics.count("lost", 7)
    reason = camera.health().reason
    assert "7 images of /image_raw lost on their way" in reason and "fastdds_images.xml" in reason
    assert "no image on /image_raw" in reason


def test_one_topic_by_two_names_is_refused(observer):
    check_distinct(observer.node, ("eye/image_raw", "image_raw"))
    with pytest.raises(ParameterError, match="names /eye/image_raw twice, as eye/image_raw and as /eye/image_raw"):
        check_distinct(observer.node, ("eye/image_raw", "/eye/image_raw"))


def test_lost_images_are_warned_of_with_advice_until_none_is_lost_any_more(camera):
    assert camera.health().level == DiagnosticStatus.OK
    camera.statistics.count("lost", 3)
    health = camera.health()
    assert health.level == DiagnosticStatus.WARN
    assert "3 images of /image_raw lost" in health.reason and "fastdds_images.xml" in health.reason
    assert camera.health().level == DiagnosticStatus.OK


def test_remapping_the_image_topic_moves_the_compressed_one_with_it(observer):
    remapping = ["--ros-args", "-r", "image_raw:=front/image"]
    node = rclpy.create_node("remapped", cli_args=remapping, use_global_arguments=False)
    camera = make_camera(node, Settings(image_transport="compressed"))
    assert camera.topic == "/front/image/compressed"
    camera.close()
    node.destroy_node()

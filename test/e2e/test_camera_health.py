"""One camera of the node, on a real ROS node in this process: its health and the name of its topic."""

from __future__ import annotations

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus

from anydepth_perception.ros.camera import Camera
from anydepth_perception.serving.settings import Settings


@pytest.fixture
def camera(observer):
    node = observer.node
    camera = Camera(
        node,
        0,
        topic="image_raw",
        prefix="",
        settings=Settings(),
        class_names=("person",),
        frames=None,
        enqueue=lambda pending: False,
        counted_age=lambda index: None,
    )
    yield camera
    camera.close()


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
    camera = Camera(
        node,
        0,
        topic="image_raw",
        prefix="",
        settings=Settings(image_transport="compressed"),
        class_names=("person",),
        frames=None,
        enqueue=lambda pending: False,
        counted_age=lambda index: None,
    )
    assert camera.topic == "/front/image/compressed"
    camera.close()
    node.destroy_node()

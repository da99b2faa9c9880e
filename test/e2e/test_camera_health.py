"""Health of one camera of the node, on a real ROS node in this process."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from anydepth_perception.ros.camera import Camera
from anydepth_perception.ros.parameters import Settings


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

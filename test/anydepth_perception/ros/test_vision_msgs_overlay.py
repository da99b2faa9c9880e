"""The vision_msgs at hand are the distribution's on the wire, whoever generated them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.context import Context
from rclpy.serialization import deserialize_message, serialize_message
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

# REP 2016 hashes of vision_msgs 4.1.1, computed from upstream's own definitions.
TYPE_HASHES = {
    "BoundingBox2D": "RIHS01_008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    "Detection2D": "RIHS01_0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "Detection2DArray": "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    "LabelInfo": "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "ObjectHypothesis": "RIHS01_51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "ObjectHypothesisWithPose": "RIHS01_41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "Point2D": "RIHS01_eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247",
    "Pose2D": "RIHS01_b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648",
    "VisionClass": "RIHS01_1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a",
    "VisionInfo": "RIHS01_95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
}


@pytest.mark.parametrize("message", TYPE_HASHES)
def test_type_hash_equals_upstream(message: str) -> None:
    description = Path(get_package_share_directory("vision_msgs"), "msg", f"{message}.json")
    if not description.is_file():
        pytest.skip("this ROS distribution is older than type hashes")
    hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(description.read_text())["type_hashes"]}
    assert hashes[f"vision_msgs/msg/{message}"] == TYPE_HASHES[message]


def test_type_hash_is_what_a_publisher_announces() -> None:
    context = Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("type_hash", context=context)
        publisher = node.create_publisher(Detection2DArray, "type_hash_detections", 1)
        (endpoint,) = node.get_publishers_info_by_topic(publisher.topic_name)
        if not hasattr(endpoint, "topic_type_hash"):
            pytest.skip("this ROS distribution is older than type hashes")
        assert str(endpoint.topic_type_hash) == TYPE_HASHES["Detection2DArray"]
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_detections_survive_serialization() -> None:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = "forklift"
    hypothesis.hypothesis.score = 0.875
    detection = Detection2D(results=[hypothesis], id="7")
    detection.header.frame_id = "camera_optical_frame"
    detection.bbox.center.position.x = 320.5
    detection.bbox.center.position.y = 200.25
    detection.bbox.size_x = 64.0
    detection.bbox.size_y = 48.0
    array = Detection2DArray(detections=[detection, Detection2D()])
    array.header.stamp.sec = 12
    array.header.stamp.nanosec = 999_999_999
    assert deserialize_message(serialize_message(array), Detection2DArray) == array


def test_label_info_survives_serialization() -> None:
    info = LabelInfo(class_map=[VisionClass(class_id=3, class_name="pallet")], threshold=0.25)
    assert deserialize_message(serialize_message(info), LabelInfo) == info

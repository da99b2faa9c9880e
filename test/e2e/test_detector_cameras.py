"""Compressed images, and several cameras on one detector."""

from __future__ import annotations

import cv2
import numpy as np
from ros_processes import BEST_EFFORT, RELIABLE, image_message, key_of, stamped
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from anydepth_perception.detection.images import byte_array


def jpeg(header: Header) -> CompressedImage:
    """A CompressedImage with a smooth picture."""
    ramp = np.tile(np.arange(160, dtype=np.uint8), (120, 1))
    data = cv2.imencode(".jpg", cv2.merge([ramp, ramp, ramp]))[1]
    return CompressedImage(header=header, format="jpeg", data=byte_array(data))


def test_compressed_images_are_served_and_truncated_ones_survived(start, node_arguments, observer):
    detector = start(*node_arguments(image_transport="compressed", image_qos="reliable"))
    observer.wait_for_state("active")
    detections = observer.collect(Detection2DArray, "detections")
    observer.wait_for_publisher("/detections")
    images = observer.publisher(CompressedImage, "image_raw/compressed", RELIABLE)
    truncated = jpeg(stamped(0))
    truncated.data = truncated.data[: len(truncated.data) // 2]
    images.publish(truncated)
    observer.status(lambda status, values: values["frames_bad"] == "1", "the truncated frame counted")
    good = stamped(1)
    images.publish(jpeg(good))
    observer.spin_until(lambda: detections, "detections of the good frame")
    assert [key_of(message.header) for message in detections] == [key_of(good)]
    assert "truncated" in detector.log()
    detector.end()


def test_each_of_two_cameras_gets_its_own_detections(start, node_arguments, observer):
    detector = start(*node_arguments(image_topics=["left/image_raw", "right/image_raw"]))
    observer.wait_for_state("active")
    collected, publishers = {}, {}
    for side in ("left", "right"):
        collected[side] = observer.collect(Detection2DArray, f"{side}/detections")
        observer.wait_for_publisher(f"/{side}/detections")
        publishers[side] = observer.publisher(Image, f"{side}/image_raw", BEST_EFFORT)

    def enough() -> bool:
        for side, publisher in publishers.items():
            publisher.publish(image_message(stamped(0, frame_id=side)))
        return all(len(messages) >= 5 for messages in collected.values())

    observer.spin_until(enough, "detections of both cameras")
    for side, messages in collected.items():
        assert {message.header.frame_id for message in messages} == {side}
    detector.end()

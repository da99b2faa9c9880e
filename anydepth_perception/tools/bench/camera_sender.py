"""The cameras of `cameras`: one process that publishes an image on several topics, each with a clock of its own."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import rclpy
from sensor_msgs.msg import Image

from anydepth_perception.aisle import AisleScene
from anydepth_perception.detection.images import fill_image
from anydepth_perception.ros.qos import image_qos
from anydepth_perception.tools.interrupt import interruptible


class _Options(argparse.Namespace):
    topics: list[str]
    behind_s: list[float]
    rate_hz: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Publishes until SIGINT; the cameras take turns within a period."""
    parser = argparse.ArgumentParser(prog="camera_sender", description=__doc__)
    parser.add_argument("--topics", nargs="+", required=True)
    parser.add_argument("--behind-s", nargs="+", type=float, required=True, help="of each camera's clock, seconds")
    parser.add_argument("--rate-hz", type=float, required=True)
    options = parser.parse_args(arguments, _Options())
    with interruptible():
        _run(options)


def _run(options: _Options) -> None:
    rclpy.init()
    node = rclpy.create_node("camera_sender")
    publishers = [node.create_publisher(Image, topic, image_qos("best_effort")) for topic in options.topics]
    pixels = AisleScene(0, 640, 480).render(0.0).image
    message = Image()
    fill_image(message, pixels, "rgb8")
    due_s = time.monotonic()
    try:
        while rclpy.ok():
            for publisher, behind_s in zip(publishers, options.behind_s, strict=True):
                due_s += 1.0 / options.rate_hz / len(publishers)
                time.sleep(max(0.0, due_s - time.monotonic()))
                stamp_ns = time.time_ns() - int(behind_s * 1e9)
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
                publisher.publish(message)
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()

"""The two processes that `transport` measures between: one publishes images, the other one receives them."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import rclpy
from sensor_msgs.msg import Image

from anydepth_perception.detection.images import fill_image
from anydepth_perception.ros.qos import image_qos
from anydepth_perception.tools.arguments import fail
from anydepth_perception.tools.interrupt import interruptible

TOPIC = "transport_bench/image"
MATCH_TIMEOUT_S = 20.0
_DRAIN_S = 0.5


class NoSubscriberError(RuntimeError):
    """The publisher found nobody to send to."""


class _Options(argparse.Namespace):
    role: str
    width: int
    height: int
    rate_hz: float
    frames: int


def main(arguments: Sequence[str] | None = None) -> None:
    """One of the two processes; prints its figures as JSON."""
    parser = argparse.ArgumentParser(prog="transport_peers", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    publish = roles.add_parser("publish")
    publish.add_argument("width", type=int)
    publish.add_argument("height", type=int)
    publish.add_argument("rate_hz", type=float)
    publish.add_argument("frames", type=int)
    roles.add_parser("receive")
    with interruptible():
        _run(parser.parse_args(arguments, _Options()))


def _run(options: _Options) -> None:
    rclpy.init()
    try:
        if options.role == "publish":
            print(json.dumps(_publish(options.width, options.height, options.rate_hz, options.frames)))
        else:
            print(json.dumps(_receive()))
    except NoSubscriberError as error:
        fail(error)
    finally:
        rclpy.try_shutdown()


def _publish(width: int, height: int, rate_hz: float, frames: int) -> dict[str, int]:
    node = rclpy.create_node("transport_bench_publisher")
    publisher = node.create_publisher(Image, TOPIC, image_qos("best_effort"))
    waited_until = time.monotonic() + MATCH_TIMEOUT_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > waited_until:
            raise NoSubscriberError(f"no subscriber within {MATCH_TIMEOUT_S:.0f} s")
        rclpy.spin_once(node, timeout_sec=0.05)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    message = Image()
    due = time.monotonic()
    for _ in range(frames):
        fill_image(message, pixels, "rgb8")
        # The steady clock is one for all processes of a machine.
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.monotonic_ns(), 10**9)
        publisher.publish(message)
        due += 1.0 / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
    # Images on their way are lost with the process that holds them.
    time.sleep(_DRAIN_S)
    node.destroy_node()
    return {"sent": frames}


def _receive() -> dict[str, float | int | None]:
    latencies_ms: list[float] = []

    def on_image(message: Image) -> None:
        stamp = message.header.stamp
        latencies_ms.append((time.monotonic_ns() - (stamp.sec * 10**9 + stamp.nanosec)) / 1e6)

    node = rclpy.create_node("transport_bench_subscriber")
    node.create_subscription(Image, TOPIC, on_image, image_qos("best_effort"))
    done = threading.Thread(target=sys.stdin.readline, daemon=True)
    done.start()
    while done.is_alive():
        rclpy.spin_once(node, timeout_sec=0.05)
    node.destroy_node()
    percentiles = np.percentile(latencies_ms, [50, 95]).round(3).tolist() if latencies_ms else [None, None]
    return {"received": len(latencies_ms), "latency_ms_p50": percentiles[0], "latency_ms_p95": percentiles[1]}


if __name__ == "__main__":
    main()

"""Measures how the node shares its time between cameras that send more than it can serve, over DDS."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from vision_msgs.msg import Detection2DArray

from anydepth_perception.ros import qos
from anydepth_perception.tools.arguments import fail, number, whole_number
from anydepth_perception.tools.demo.children import Child, DemoError
from anydepth_perception.tools.environment import use_own_ros_domain
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import add_model

_RATE_HZ = 10.0
_BEHIND_S = 9.0
_START_S = 180.0


class Shares(TypedDict):
    """Of what was sent, how much was served (of 100 % there is nothing to share); detections a second of each camera.

    `worst_percent` is how far the worst one is from an equal share, in percent of it.
    """

    served_percent: float
    per_second: list[float]
    worst_percent: float


class CamerasReport(TypedDict):
    """What was measured with: right clocks, and one clock that is 9 s behind."""

    cameras: int
    rate_hz: float
    seconds: float
    right_clocks: Shares
    one_clock_behind: Shares


class _Options(argparse.Namespace):
    model: str
    cameras: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the measurement and prints JSON on the last line."""
    parser = argparse.ArgumentParser(prog="bench cameras", description=__doc__)
    add_model(parser)
    parser.add_argument("--cameras", type=whole_number(2), default=4, help="default: %(default)s")
    parser.add_argument("--seconds", type=number(1.0, 3600.0), default=20.0, help="of each run (default: %(default)s)")
    options = parser.parse_args(arguments, _Options())
    use_own_ros_domain(unless_chosen=True)
    qos.use_image_profile()
    with interruptible():
        try:
            print(json.dumps(measure(options.model, options.cameras, options.seconds)))
        except (DemoError, OSError) as error:
            fail(error)


def measure(model: str, cameras: int, seconds: float) -> CamerasReport:
    """Both runs.

    The node runs on one thread at full depth, which is too slow for all that the cameras send.

    Raises:
        DemoError: a process ends, or no detections come.
    """
    rclpy.init()
    try:
        clocks = [0.0] * cameras
        return {
            "cameras": cameras,
            "rate_hz": _RATE_HZ,
            "seconds": seconds,
            "right_clocks": _shares(model, clocks, seconds),
            "one_clock_behind": _shares(model, [0.0, _BEHIND_S, *clocks[2:]], seconds),
        }
    finally:
        rclpy.try_shutdown()


def shares(services: Sequence[int], seconds: float) -> Shares:
    """The figures of so many services in so many seconds."""
    equal = sum(services) / len(services)
    worst = max(abs(count - equal) for count in services) / equal if equal else 1.0
    sent = _RATE_HZ * seconds * len(services)
    return {
        "served_percent": round(100 * sum(services) / sent, 1),
        "per_second": [round(count / seconds, 2) for count in services],
        "worst_percent": round(100 * worst, 1),
    }


def _shares(model: str, behind_s: Sequence[float], seconds: float) -> Shares:
    topics = [f"camera{index}/image_raw" for index in range(len(behind_s))]
    node_arguments = ["--ros-args", "-p", f"model:={model}", "-p", f"image_topics:=[{','.join(topics)}]"]
    node_arguments += ["-p", "depth:=full", "-p", "threads:=1", "-p", "deadline_ms:=200.0"]
    sender_arguments = ["--topics", *topics, "--behind-s", *map(str, behind_s), "--rate-hz", str(_RATE_HZ)]
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        node = rclpy.create_node("bench_cameras")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            with Child("anydepth_perception.ros", node_arguments, logs / "detector.log") as detector:
                counts = _count(node, len(topics))
                with Child("anydepth_perception.tools.bench.camera_sender", sender_arguments, logs / "s.log") as sender:

                    def spin_until(condition: Callable[[], bool], bound_s: float) -> None:
                        end_s = time.monotonic() + bound_s
                        while not condition() and time.monotonic() < end_s:
                            executor.spin_once(timeout_sec=0.05)
                            detector.check()
                            sender.check()

                    spin_until(lambda: min(counts) >= 3, _START_S)
                    if min(counts) < 3:
                        raise DemoError(f"no detections of some camera within {_START_S:.0f} s: {counts}")
                    before = list(counts)
                    spin_until(lambda: False, seconds)
                    return shares([now - then for now, then in zip(counts, before, strict=True)], seconds)
        finally:
            executor.shutdown()
            node.destroy_node()


def _count(node: Node, cameras: int) -> list[int]:
    """Detections of each camera, counted from now on."""
    counts = [0] * cameras

    def counter(camera: int) -> Callable[[Detection2DArray], None]:
        def count(_: Detection2DArray) -> None:
            counts[camera] += 1

        return count

    for camera in range(cameras):
        topic = f"camera{camera}/detections"
        node.create_subscription(Detection2DArray, topic, counter(camera), qos.DETECTIONS)
    return counts

"""Measures the start of the node: seconds from the process's start to the first detections, cold and warm cache."""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from anydepth_perception.aisle import AisleScene
from anydepth_perception.detection.images import fill_image
from anydepth_perception.ros import qos
from anydepth_perception.tools.arguments import fail, whole_number
from anydepth_perception.tools.environment import use_own_ros_domain
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import add_backend, add_execution, add_model
from anydepth_perception.tools.processes import end_process

_RATE_HZ = 30.0
_WIDTH, _HEIGHT = 640, 480
_TIMEOUT_S = 600.0
_MILESTONES = {
    "first_log_line_s": re.compile(r""),
    "engines_s": re.compile(r"engines? ready"),
    "profile_s": re.compile(r"profile (read|measured)"),
    "configured_s": re.compile(r"configure: done"),
    "active_s": re.compile(r"activate: done"),
}
"""What the node logs on its way; the first line that matches counts."""

_FAILED = b"configure failed"
_LOG_LINE = re.compile(r"\[INFO\] \[([0-9]+\.[0-9]+)\] \[[\w.]*detector\]: (.*)")


class StartError(RuntimeError):
    """The node did not come up; the message says why."""


class Options(argparse.Namespace):
    """What the command line says."""

    starts: int
    model: str
    backend: str
    execution: str


class Report(TypedDict):
    """What was started how often, and medians of seconds by milestone, with a cold and a warm cache."""

    starts: int
    model: str
    backend: str
    execution: str
    cold: dict[str, float]
    warm: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the measurement and prints JSON on the last line."""
    options = _parse(arguments)
    use_own_ros_domain(unless_chosen=True)
    qos.use_image_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    with interruptible():
        try:
            print(json.dumps(measure(options)))
        except StartError as error:
            fail(error)
        finally:
            rclpy.try_shutdown()


def measure(options: Options) -> Report:
    """Medians over the starts; milestones are seconds since the start of the process too.

    Raises:
        StartError: a node ended, or sent nothing in time.
    """
    parameters = {"model": options.model, "backend": options.backend, "execution": options.execution}
    cold, warm = [], []
    with Counterpart() as counterpart, tempfile.TemporaryDirectory(prefix="anydepth-start-") as folder:
        for number in range(options.starts):
            cache = Path(folder) / f"cold_{number}"
            cold.append(time_start(counterpart, cache, parameters, Path(folder) / "log"))
            _show("cold", cold[-1])
        # The last of the cold ones has filled its cache, but kept its profile only if the machine was idle.
        _keep_profile(cache, parameters)
        for _ in range(options.starts):
            warm.append(time_start(counterpart, cache, parameters, Path(folder) / "log"))
            _show("warm", warm[-1])
    return {
        "starts": options.starts,
        "model": options.model,
        "backend": options.backend,
        "execution": options.execution,
        "cold": _medians(cold),
        "warm": _medians(warm),
    }


def time_start(counterpart: Counterpart, cache: Path, parameters: dict[str, str], log: Path) -> dict[str, float]:
    """Starts a node with `cache` as the user's cache folder, and ends it after its first detections.

    Raises:
        StartError: it ended, or sent nothing in time.
    """
    line = [sys.executable, "-m", "anydepth_perception.ros", "--ros-args"]
    for name, value in parameters.items():
        line += ["-p", f"{name}:={value}"]
    with log.open("wb") as file:
        started_s, started = time.time(), time.monotonic()
        process = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, env=_environment(cache))
        try:
            # A node that fails to configure lives on, for its parameters to be mended.
            arrived = counterpart.wait_for_detections(
                started_s, lambda: process.poll() is None and _FAILED not in log.read_bytes()
            )
        finally:
            end_process(process)
    text = log.read_text(errors="replace")
    if arrived is None:
        raise StartError(f"no detections came; the end of the node's log:\n{text[-2000:]}")
    return {**_milestones(text, started_s), "first_detections_s": arrived - started}


class Counterpart:
    """Camera and subscriber of the node under test: an image of the aisle at 30 Hz, and what comes back."""

    def __init__(self) -> None:
        """Advertises the image and subscribes to the detections."""
        self._node = rclpy.create_node("bench_start")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publisher = self._node.create_publisher(Image, "image_raw", qos.image_qos("best_effort"))
        self._node.create_subscription(Detection2DArray, "detections", self._on_detections, qos.DETECTIONS)
        self._pixels = AisleScene(0, _WIDTH, _HEIGHT).render(0.0).image
        self._node.create_timer(1.0 / _RATE_HZ, self._publish)
        self._since_s = 0.0
        self._arrived: float | None = None

    def __enter__(self) -> Counterpart:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()

    def wait_for_detections(self, since_s: float, is_well: Callable[[], bool]) -> float | None:
        """When the first detections of an image published after `since_s` came; None: the node failed or is too late.

        `since_s` is of the system's clock, the result of the monotonic one.
        """
        self._since_s, self._arrived = since_s, None
        end = time.monotonic() + _TIMEOUT_S
        while self._arrived is None and is_well() and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.1)
        return self._arrived

    def _publish(self) -> None:
        message = Image(header=Header(stamp=self._node.get_clock().now().to_msg(), frame_id="camera"))
        fill_image(message, self._pixels, "rgb8")
        self._publisher.publish(message)

    def _on_detections(self, message: Detection2DArray) -> None:
        stamp_s = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        if self._arrived is None and stamp_s >= self._since_s:  # others come from the node before
            self._arrived = time.monotonic()


def _keep_profile(cache: Path, parameters: dict[str, str]) -> None:
    line = [sys.executable, "-m", "anydepth_perception.tools.profile", "--no-segments", "--repeats", "5"]
    for name, value in parameters.items():
        line += [f"--{name}", value]
    done = subprocess.run(line, env=_environment(cache), capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(f"the profile tool failed: {done.stderr.strip()}")


def _environment(cache: Path) -> dict[str, str]:
    """That of a shell, where the start-up hook of the ROS wheels has not run, with `cache` as the user's cache."""
    environment = {key: value for key, value in os.environ.items() if key != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    return {**environment, "XDG_CACHE_HOME": str(cache)}


def _milestones(log: str, started_s: float) -> dict[str, float]:
    reached: dict[str, float] = {}
    for stamp, text in _LOG_LINE.findall(log):
        for name, pattern in _MILESTONES.items():
            if name not in reached and pattern.search(text):
                reached[name] = float(stamp) - started_s
    return reached


def _show(kind: str, times: dict[str, float]) -> None:
    print(f"{kind}: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items()), flush=True)


def _medians(starts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(times[name] for times in starts if name in times), 3) for name in starts[-1]}


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="bench start", description=__doc__)
    parser.add_argument("--starts", type=whole_number(1), default=5, help="starts of each kind (default: %(default)s)")
    add_model(parser)
    add_backend(parser, default="onnxruntime")
    add_execution(parser)
    return parser.parse_args(arguments, Options())

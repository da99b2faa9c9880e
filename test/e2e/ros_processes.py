"""Processes and a ROS client for the end-to-end tests: real nodes over real DDS, waited for with bounds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, SetParametersResult
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from anydepth_perception.detection.images import fill_image

ROOT = Path(__file__).resolve().parents[2]
RUNTIME_PYTHON = ROOT / ".venv" / "bin" / "python"
BOUND_S = 60.0
"""How long a test waits for what must happen; generous, for loaded machines."""
REPEAT_S = 5.0
"""After what time without an answer a request is sent again."""
END_BOUND_S = 2.0
"""Within what time every process has to end on SIGINT or SIGTERM."""

RELIABLE = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
"""Holds more messages than a test sends at once, so that a burst does not push any out before it is looked at."""
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def runtime_python() -> str:
    """The interpreter of the run-time environment, which has no torch; else that of the tests."""
    return str(RUNTIME_PYTHON) if RUNTIME_PYTHON.exists() else sys.executable


def child_environment() -> dict[str, str]:
    """The environment of the tests without what the ROS wheels put in for this interpreter alone."""
    environment = {key: value for key, value in os.environ.items() if key != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    libraries = environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(part for part in libraries if not part.startswith(sys.prefix))
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, arguments: list[str], log_path: Path, environment: dict[str, str] | None = None) -> None:
        self._log_path = log_path
        with log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                arguments, stdout=log, stderr=subprocess.STDOUT, env={**child_environment(), **(environment or {})}
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    def log(self) -> str:
        """What the process has written so far."""
        return self._log_path.read_text(errors="replace")

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._popen.poll() is not None

    def wait(self) -> int:
        """The exit code, once the process ends by itself."""
        return self._popen.wait(BOUND_S)

    def wait_for_log(self, text: str) -> None:
        """Waits until the process has written `text`."""
        wait_until(lambda: text in self.log() or self.has_ended(), lambda: f"{text!r} in the log:\n{self.log()}")
        assert text in self.log(), self.log()

    def end(self, number: int = signal.SIGINT) -> None:
        """Sends a signal and asserts a prompt, quiet end: within 2 s, exit code 0, no traceback."""
        assert not self.has_ended(), self.log()
        self._popen.send_signal(number)
        try:
            code = self._popen.wait(END_BOUND_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running {END_BOUND_S} s after the signal:\n{self.log()}") from None
        assert code == 0, f"exit code {code}:\n{self.log()}"
        assert "Traceback" not in self.log(), self.log()

    def kill(self) -> None:
        """Ends the process whatever it does; for clean-up."""
        if not self.has_ended():
            self._popen.kill()
            self._popen.wait()


def wait_until(condition: Callable[[], Any], what: Callable[[], str], bound_s: float = BOUND_S) -> Any:
    """Polls until the condition holds and returns its value; fails with `what` after the bound."""
    end = time.monotonic() + bound_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {bound_s} s for {what()}"
        time.sleep(0.01)


class Observer:
    """A node in this process that talks to the node under test."""

    def __init__(self, target: str = "/detector") -> None:
        self.node = rclpy.create_node("observer")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._target = target
        self._clients: dict[str, Any] = {}
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        self._diagnosed_ns = 0
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()

    def spin_until(self, condition: Callable[[], Any], what: str, bound_s: float = BOUND_S) -> Any:
        """Serves callbacks until the condition holds and returns its value; fails after the bound."""
        end = time.monotonic() + bound_s
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < end, f"waited {bound_s} s for {what}"
            self._executor.spin_once(timeout_sec=0.05)

    def collect(self, message_type: type, topic: str, qos: QoSProfile = RELIABLE) -> list[Any]:
        """A list that grows with the messages of a topic."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def publisher(self, message_type: type, topic: str, qos: QoSProfile = BEST_EFFORT, readers: int = 1) -> Any:
        """A publisher that has found its subscribers."""
        publisher = self.node.create_publisher(message_type, topic, qos)
        self.spin_until(lambda: publisher.get_subscription_count() >= readers, f"subscribers of {topic}")
        return publisher

    def wait_for_publisher(self, topic: str) -> None:
        """Waits until somebody publishes `topic`, and this process knows."""
        self.spin_until(lambda: self.node.count_publishers(topic) > 0, f"a publisher of {topic}")

    def call(self, service_type: type, name: str, request: Any, *, repeatable: bool = True) -> Any:
        """Calls a service of the node under test.

        A server that has not found the client yet drops its answer without a word. A `repeatable` request is sent
        again then; all but a transition are.
        """
        path = f"{self._target}/{name}"
        if path not in self._clients:
            self._clients[path] = self.node.create_client(service_type, path)
        client = self._clients[path]
        self.spin_until(client.service_is_ready, f"service {path}")
        futures = [client.call_async(request)]
        sent = time.monotonic()

        def answered() -> Any:
            nonlocal sent
            if repeatable and time.monotonic() > sent + REPEAT_S:
                futures.append(client.call_async(request))
                sent = time.monotonic()
            return next((future for future in futures if future.done()), None)

        return self.spin_until(answered, f"an answer of {path}").result()

    def set_parameter(self, name: str, value: Any) -> SetParametersResult:
        """Sets one parameter through the parameter service."""
        message = rclpy.parameter.Parameter(name, value=value).to_parameter_msg()
        return self.set_raw_parameter(message)

    def set_raw_parameter(self, message: Parameter) -> SetParametersResult:
        """Sets one parameter given as a message."""
        return self.call(SetParameters, "set_parameters", SetParameters.Request(parameters=[message])).results[0]

    def get_parameter(self, name: str) -> Any:
        """Value of one parameter."""
        response = self.call(GetParameters, "get_parameters", GetParameters.Request(names=[name]))
        return parameter_value_to_python(response.values[0])

    def describe(self, name: str) -> Any:
        """Descriptor of one parameter."""
        request = DescribeParameters.Request(names=[name])
        return self.call(DescribeParameters, "describe_parameters", request).descriptors[0]

    def state(self) -> str:
        """Life-cycle state."""
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def wait_for_state(self, label: str) -> None:
        """Waits until the node has reached a life-cycle state."""
        self.spin_until(lambda: self.state() == label, f"state {label}")

    def change_state(self, label: str) -> bool:
        """Asks for a transition, by its number as rclpy takes it without a look; whether it was done."""
        name = "ACTIVE_SHUTDOWN" if label == "shutdown" else label.upper()
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name}")
        return self.call(ChangeState, "change_state", request, repeatable=False).success

    def status(self, condition: Callable[[DiagnosticStatus, dict[str, str]], bool], what: str) -> DiagnosticStatus:
        """The diagnostics of the node, once some made from now on fulfil a condition on status and values."""
        asked_ns = time.time_ns()

        def found() -> DiagnosticStatus | None:
            status = self.diagnostics.get(f"{self._target.lstrip('/')}: detector")
            if status is None or self._diagnosed_ns < asked_ns or not condition(status, values_of(status)):
                return None
            return status

        return self.spin_until(found, f"diagnostics: {what}")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._diagnosed_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.diagnostics.update({status.name: status for status in message.status})


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    """The key-value part of a status."""
    return {item.key: item.value for item in status.values}


def stamped(index: int, frame_id: str = "camera") -> Header:
    """A header with the time of now, made unique by `index` in its last digits."""
    now_ns = time.time_ns() // 1000 * 1000 + index % 1000
    return Header(stamp=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9), frame_id=frame_id)


def key_of(header: Header) -> tuple[int, int, str]:
    """A header as something to compare and count."""
    return header.stamp.sec, header.stamp.nanosec, header.frame_id


def image_message(header: Header, seed: int = 0, width: int = 160, height: int = 120) -> Image:
    """A noisy rgb8 image."""
    message = Image(header=header)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    fill_image(message, pixels, "rgb8")
    return message

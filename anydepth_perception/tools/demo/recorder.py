"""What the demo sees of the two processes: every image, detection, frame report and true box, by stamp."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from anydepth_perception.detection.images import decode
from anydepth_perception.ros.qos import image_qos
from anydepth_perception.tools.camera.node import IGNORE
from anydepth_perception.tools.demo.children import DemoError
from anydepth_perception.tools.demo.score import LabelledBoxes

_RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_IMAGE_DEPTH = 10
_ANSWER_S = 20.0
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class ServedFrame:
    """The node's report of one frame: depth in text form, milliseconds, whether the deadline was missed."""

    stamp_ns: int
    depth: str
    latency_ms: float
    inference_ms: float
    missed: bool


@dataclass
class Recording:
    """Everything received since it was made, by stamp in nanoseconds."""

    images: dict[int, np.ndarray] = field(default_factory=dict)
    detections: dict[int, LabelledBoxes] = field(default_factory=dict)
    truth: dict[int, LabelledBoxes] = field(default_factory=dict)
    served: list[ServedFrame] = field(default_factory=list)


class Recorder:
    """A node in this process that observes and steers the camera and the detector."""

    def __init__(self, check_children: Callable[[], None]) -> None:
        """`check_children` is called while waiting and raises when waiting has become pointless."""
        self._check_children = check_children
        self.recording = Recording()
        self.keep_images = False
        self._diagnostics: dict[str, str] = {}
        self._diagnosed_s = 0.0
        self._node = rclpy.create_node("demo")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        node = self._node
        node.create_subscription(Image, "image_raw", self._on_image, image_qos("best_effort", _IMAGE_DEPTH))
        node.create_subscription(Detection2DArray, "detections", self._on_detections, _RELIABLE)
        node.create_subscription(Detection2DArray, "ground_truth", self._on_truth, _RELIABLE)
        node.create_subscription(DiagnosticStatus, "detector/frames", self._on_frame, _RELIABLE)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, _RELIABLE)
        self._parameters = node.create_client(SetParameters, "detector/set_parameters")
        self._enable = node.create_client(SetBool, "camera/enable")

    def close(self) -> None:
        """Gives the node up."""
        self._executor.shutdown()
        self._node.destroy_node()

    def spin_until(self, condition: Callable[[], object], what: str, bound_s: float = _ANSWER_S) -> None:
        """Serves callbacks until the condition holds.

        Raises:
            DemoError: a child ended, or `bound_s` seconds went by.
        """
        end = time.monotonic() + bound_s
        while True:
            if condition():
                return
            self._check_children()
            if time.monotonic() > end:
                raise DemoError(f"waited {bound_s:.0f} s for {what}")
            self._executor.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds: float) -> None:
        """Serves callbacks for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)
        self._check_children()

    def start(self) -> Recording:
        """A new recording, which takes what comes from now on."""
        self.recording = Recording()
        return self.recording

    def wait_until_active(self, bound_s: float) -> None:
        """Waits for the detector to become active.

        Raises:
            DemoError: it failed to, with its reason, or took longer than `bound_s`.
        """

        def active() -> bool:
            if self._diagnostics.get("level") == "2":
                raise DemoError(f"the detector reports: {self._diagnostics['message']}")
            return self._diagnostics.get("state") == "active"

        self.spin_until(active, "the detector to become active", bound_s)
        self.spin_until(self._enable.service_is_ready, "the camera's service")

    def set_parameters(self, **values: str | float) -> None:
        """Sets parameters of the detector."""
        self.spin_until(self._parameters.service_is_ready, "the detector's parameter service")
        messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        future = self._parameters.call_async(SetParameters.Request(parameters=messages))
        self.spin_until(future.done, "an answer of the parameter service")
        for result in future.result().results:
            if not result.successful:
                raise DemoError(f"the detector refused a parameter: {result.reason}")

    def run_camera(self, running: bool) -> int:
        """Starts or stops the camera; images that it has published so far."""
        future = self._enable.call_async(SetBool.Request(data=running))
        self.spin_until(future.done, "an answer of the camera")
        message = future.result().message
        match = re.search(r"(\d+) images", message)
        if match is None:
            raise DemoError(f"the camera answered {message!r}")
        return int(match[1])

    def counts(self) -> dict[str, int]:
        """The detector's counts of frames, from diagnostics made from now on."""
        asked_s = time.monotonic() + 0.2  # what is on its way was made before
        self.spin_until(lambda: self._diagnosed_s > asked_s, "diagnostics")
        prefix = "frames_"
        return {
            key.removeprefix(prefix): int(value) for key, value in self._diagnostics.items() if key.startswith(prefix)
        }

    def _on_image(self, message: Image) -> None:
        if self.keep_images:
            frame = decode(message)
            image = frame.image if frame.color == "bgr" else cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            _, jpeg = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
            self.recording.images[_stamp_ns(message.header)] = jpeg

    def _on_detections(self, message: Detection2DArray) -> None:
        self.recording.detections[_stamp_ns(message.header)] = _boxes_of(message)

    def _on_truth(self, message: Detection2DArray) -> None:
        self.recording.truth[_stamp_ns(message.header)] = _boxes_of(message)

    def _on_frame(self, message: DiagnosticStatus) -> None:
        values = {item.key: item.value for item in message.values}
        seconds, nanoseconds = values["stamp"].split(".")
        frame = ServedFrame(
            stamp_ns=int(seconds) * 10**9 + int(nanoseconds),
            depth=values["depth"],
            latency_ms=float(values["latency_ms"]),
            inference_ms=float(values["inference_ms"]),
            missed=values["missed"] == "true",
        )
        self.recording.served.append(frame)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "detector: detector":
                self._diagnostics = {item.key: item.value for item in status.values}
                level = status.level
                self._diagnostics["level"] = str(level[0] if isinstance(level, bytes) else level)
                self._diagnostics["message"] = status.message
                self._diagnosed_s = time.monotonic()


def split_truth(truth: LabelledBoxes) -> tuple[LabelledBoxes, np.ndarray]:
    """The objects, and the boxes [k, 4] of the ignored regions, of a ground-truth message."""
    ignored = np.array([name == IGNORE for name in truth.names], bool)
    names = tuple(name for name in truth.names if name != IGNORE)
    return LabelledBoxes(truth.boxes[~ignored], names, truth.scores[~ignored]), truth.boxes[ignored]


def _stamp_ns(header: Header) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def _boxes_of(message: Detection2DArray) -> LabelledBoxes:
    centres = [(d.bbox.center.position.x, d.bbox.center.position.y) for d in message.detections]
    sizes = [(d.bbox.size_x, d.bbox.size_y) for d in message.detections]
    centre, half = np.array(centres).reshape(-1, 2), np.array(sizes).reshape(-1, 2) / 2
    hypotheses = [d.results[0].hypothesis for d in message.detections]
    return LabelledBoxes(
        np.concatenate([centre - half, centre + half], axis=1),
        tuple(hypothesis.class_id for hypothesis in hypotheses),
        np.array([hypothesis.score for hypothesis in hypotheses]),
    )

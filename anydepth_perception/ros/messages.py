"""From detections to vision_msgs, and from frame reports to diagnostic_msgs."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

from anydepth_perception.detection.detector import Detections
from anydepth_perception.detection.drawing import draw_boxes, put_text
from anydepth_perception.detection.images import Frame
from anydepth_perception.serving.statistics import FrameReport


class DetectionMessages:
    """Builds Detection2DArray messages.

    The objects of a message are used again for the next one: building them anew costs more than everything else.
    So a message is valid until the next call, which is long enough to publish it.
    """

    def __init__(self, class_ids: Sequence[str]) -> None:
        """`class_ids` is the text of `class_id` by class index."""
        self._class_ids = tuple(class_ids)
        self._array = Detection2DArray()
        self._pool: list[Detection2D] = []

    def fill(self, header: Header, detections: Detections) -> Detection2DArray:
        """A message with `header` in the array and in each detection.

        Args:
            header: std_msgs/Header of the image.
            detections: boxes_xyxy float32 [n,4] in pixels of the source image, scores float32 [n], class_ids [n].
        """
        boxes = np.asarray(detections.boxes_xyxy, np.float64).reshape(-1, 4)
        sizes = boxes[:, 2:] - boxes[:, :2]
        centers = (boxes[:, :2] + 0.5 * sizes).tolist()
        rows = zip(centers, sizes.tolist(), detections.scores.tolist(), detections.class_ids.tolist())
        while len(self._pool) < len(boxes):
            self._pool.append(Detection2D(results=[ObjectHypothesisWithPose()]))
        for detection, (center, size, score, class_id) in zip(self._pool, rows):
            detection.header = header
            detection.bbox.center.position.x, detection.bbox.center.position.y = center
            detection.bbox.size_x, detection.bbox.size_y = size
            hypothesis = detection.results[0].hypothesis
            hypothesis.class_id = self._class_ids[class_id]
            hypothesis.score = score
        self._array.header = header
        self._array.detections = self._pool[: len(boxes)]
        return self._array


def class_ids(class_names: Sequence[str], class_id_format: str) -> tuple[str, ...]:
    """The text of `class_id` by class index, for class_id_format `name` or `index`."""
    return tuple(class_names) if class_id_format == "name" else tuple(str(index) for index in range(len(class_names)))


def label_info(class_names: Sequence[str], score_threshold: float, stamp: Time) -> LabelInfo:
    """The class names by index, for whoever joins later."""
    message = LabelInfo(threshold=score_threshold)
    message.header.stamp = stamp
    message.class_map = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(class_names)]
    return message


def key_values(values: dict[str, object]) -> list[KeyValue]:
    """Diagnostic values; floats are rounded to three decimals, None becomes an empty text."""

    def text(value: object) -> str:
        if value is None:
            return ""
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    return [KeyValue(key=key, value=text(value)) for key, value in values.items()]


def frame_status(name: str, header: Header, report: FrameReport) -> DiagnosticStatus:
    """How one frame was served; `stamp` is that of the image, as `seconds.nanoseconds`."""
    values: dict[str, object] = {
        "stamp": f"{header.stamp.sec}.{header.stamp.nanosec:09d}",
        "frame_id": header.frame_id,
        "depth": report.depth,
        "detections": report.detections,
        "latency_ms": report.latency_ms,
        "queue_ms": report.queue_ms,
        "preprocess_ms": report.preprocess_ms,
        "inference_ms": report.inference_ms,
        "postprocess_ms": report.postprocess_ms,
        "deadline_ms": report.deadline_ms,
        "budget_ms": report.budget.own_ms,
        "shared_budget_ms": report.budget.shared_ms,
        "missed": str(report.missed).lower(),
    }
    level = DiagnosticStatus.WARN if report.missed else DiagnosticStatus.OK
    return DiagnosticStatus(level=level, name=name, message=report.depth, values=key_values(values))


def annotate(frame: Frame, detections: Detections, class_names: Sequence[str], caption: str) -> tuple[np.ndarray, str]:
    """A copy of the frame with boxes, labels and a caption drawn in; and its encoding, rgb8 or bgr8."""
    if frame.color == "mono":
        canvas, color = cv2.cvtColor(frame.image, cv2.COLOR_GRAY2RGB), "rgb"
    else:
        canvas, color = frame.image.copy(), frame.color
    draw_boxes(canvas, detections.boxes_xyxy, detections.scores, detections.class_ids, class_names, color)
    put_text(canvas, caption, (6, canvas.shape[0] - 8), (255, 255, 255))
    return canvas, f"{color}8"

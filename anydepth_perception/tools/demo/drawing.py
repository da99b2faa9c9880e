"""Pictures of a demo run: annotated frames as a video, and a timeline of latency, depth and load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anydepth_perception.depth.config import STAGES, DepthConfig
from anydepth_perception.detection.images import Frame
from anydepth_perception.detection.postprocess import Detections
from anydepth_perception.ros.messages import annotate
from anydepth_perception.tools.demo.children import DemoError
from anydepth_perception.tools.demo.colors import BLUE, GRID, INK, MUTED, RED, Color
from anydepth_perception.tools.demo.recorder import Recording, ServedFrame
from anydepth_perception.tools.demo.score import LabelledBoxes

GOOD = FULL = BLUE
MISSED = RED
LOAD: Color = (215, 235, 250)
ESSENTIAL: Color = (225, 205, 180)


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Attributes:
        recording: what was received.
        start_ns: stamp that time 0 stands for.
        seconds: length of the run.
        load_s: start and end of the load, seconds from the start.
        deadline_ms: of the detector.
        rate_hz: of the camera.
        cpu: (seconds from the start, share of all CPUs that was busy) of samples.
        class_names: of the detector.
    """

    recording: Recording
    start_ns: int
    seconds: float
    load_s: tuple[float, float]
    deadline_ms: float
    rate_hz: float
    cpu: Sequence[tuple[float, float]]
    class_names: tuple[str, ...]

    def time_s(self, stamp_ns: int) -> float:
        """Seconds from the start of the run."""
        return (stamp_ns - self.start_ns) / 1e9


def write_video(run: Run, path: Path) -> None:
    """Writes every recorded image with its detections, depth and latency as an MP4 at the camera's rate.

    Raises:
        DemoError: OpenCV cannot write the file.
    """
    served = {frame.stamp_ns: frame for frame in run.recording.served}
    writer: cv2.VideoWriter | None = None
    for stamp_ns, jpeg in sorted(run.recording.images.items()):
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None, "the demo encoded it itself"
        image = draw_frame(run, decoded, stamp_ns, served.get(stamp_ns))
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), run.rate_hz, size)
            if not writer.isOpened():
                raise DemoError(f"{path} cannot be written: this OpenCV has no MP4 encoder")
        writer.write(image)
    if writer is None:
        raise DemoError("no image was received, so there is no video to write")
    writer.release()


def draw_frame(run: Run, image: np.ndarray, stamp_ns: int, frame: ServedFrame | None) -> np.ndarray:
    """One image (bgr) with boxes, and a banner above it: load, depth per stage, latency against the deadline."""
    found = run.recording.detections.get(stamp_ns)
    canvas, _ = annotate(Frame(image, "bgr"), _as_detections(found, run.class_names), run.class_names, "")
    width = canvas.shape[1]
    banner = np.full((56, width, 3), 255, np.uint8)
    time_s = run.time_s(stamp_ns)
    loaded = run.load_s[0] <= time_s < run.load_s[1]
    if loaded:
        banner[:] = LOAD
    _text(banner, f"{time_s:4.1f} s", (8, 22), INK)
    _text(banner, "CPU LOAD" if loaded else "idle", (8, 44), MISSED if loaded else MUTED)
    if frame is None:
        _text(banner, "not served: a newer frame came first", (110, 33), MISSED)
    else:
        _draw_stages(banner, DepthConfig.parse(frame.depth, 99 if ".d" in frame.depth else 0), 100, 8)
        _draw_latency(banner, frame, run.deadline_ms, 100 + 8 * 42 + 12, width - 10)
    return np.vstack([banner, canvas])


def _as_detections(found: LabelledBoxes | None, class_names: tuple[str, ...]) -> Detections:
    if found is None:
        return Detections.empty()
    class_ids = np.array([class_names.index(name) for name in found.names], np.int32)
    return Detections(found.boxes.astype(np.float32), found.scores.astype(np.float32), class_ids)


def _draw_stages(banner: np.ndarray, config: DepthConfig, left: int, top: int) -> None:
    for index, (stage, full) in enumerate(zip(STAGES, config.full_paths, strict=True)):
        x = left + 42 * index
        cv2.rectangle(banner, (x, top), (x + 38, top + 20), FULL if full else ESSENTIAL, -1)
        _text(banner, stage, (x, top + 36), MUTED, 0.32)


def _draw_latency(banner: np.ndarray, frame: ServedFrame, deadline_ms: float, left: int, right: int) -> None:
    def x(milliseconds: float) -> int:
        return int(left + (right - left) * min(milliseconds / (1.5 * deadline_ms), 1.0))

    color = MISSED if frame.missed else GOOD
    cv2.rectangle(banner, (left, 8), (x(frame.latency_ms), 28), color, -1)
    cv2.line(banner, (x(deadline_ms), 4), (x(deadline_ms), 32), INK, 2)
    _text(banner, f"{frame.latency_ms:.1f} of {deadline_ms:.1f} ms", (left, 46), color, 0.42)


def draw_timeline(run: Run, title: str) -> np.ndarray:
    """The run as a picture [760, 1400, 3] (bgr): latency of every frame, path of every stage, CPU load."""
    canvas = np.full((760, 1400, 3), 255, np.uint8)
    left, right = 110, 1370
    span = max(run.seconds, 1e-3)

    def x(time_s: float) -> int:
        return int(left + (right - left) * min(max(time_s / span, 0.0), 1.0))

    _text(canvas, title, (left, 34), INK, 0.6)
    for top, bottom in ((70, 330), (370, 570), (610, 700)):
        cv2.rectangle(canvas, (x(run.load_s[0]), top), (x(run.load_s[1]), bottom), LOAD, -1)
        cv2.rectangle(canvas, (left, top), (right, bottom), MUTED, 1)
    _text(canvas, "CPU load", (x(run.load_s[0]) + 6, 86), MISSED, 0.45)
    _draw_latency_panel(canvas, run, x, 70, 330)
    _draw_depth_panel(canvas, run, x, 370, 570)
    _draw_cpu_panel(canvas, run, x, 610, 700)
    step = max(1, round(span / 10))
    for second in range(0, int(span) + 1, step):
        _text(canvas, str(second), (x(second) - 5, 722), MUTED, 0.45)
    _text(canvas, "seconds", ((left + right) // 2 - 30, 748), MUTED, 0.45)
    return canvas


def _draw_latency_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    highest = 2.0 * run.deadline_ms

    def y(milliseconds: float) -> int:
        return int(bottom - (bottom - top) * min(milliseconds / highest, 1.0))

    for fraction in (0.5, 1.5):
        value = fraction * run.deadline_ms
        cv2.line(canvas, (x(0), y(value)), (x(run.seconds), y(value)), GRID, 1)
        _text(canvas, f"{value:.0f}", (70, y(value) + 5), MUTED, 0.45)
    cv2.line(canvas, (x(0), y(run.deadline_ms)), (x(run.seconds), y(run.deadline_ms)), MISSED, 1, cv2.LINE_AA)
    _text(canvas, f"{run.deadline_ms:.0f}", (70, y(run.deadline_ms) + 5), MISSED, 0.45)
    for frame in run.recording.served:
        point = (x(run.time_s(frame.stamp_ns)), y(frame.latency_ms))
        cv2.circle(canvas, point, 3, MISSED if frame.missed else GOOD, -1, cv2.LINE_AA)
    _text(canvas, "latency", (8, top + 14), INK, 0.45)
    _text(canvas, "ms, stamp to", (8, top + 34), MUTED, 0.38)
    _text(canvas, "published", (8, top + 50), MUTED, 0.38)


def _draw_depth_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    height = (bottom - top) // len(STAGES)
    for row, stage in enumerate(STAGES):
        _text(canvas, stage, (48, top + row * height + 17), MUTED, 0.42)
    half_s = 0.5 / run.rate_hz
    for frame in run.recording.served:
        time_s = run.time_s(frame.stamp_ns)
        config = DepthConfig.parse(frame.depth, 99 if ".d" in frame.depth else 0)
        for row, full in enumerate(config.full_paths):
            y = top + row * height
            corners = (x(time_s - half_s), y + 2), (x(time_s + half_s), y + height - 2)
            cv2.rectangle(canvas, *corners, FULL if full else ESSENTIAL, -1)
    _text(canvas, "depth", (8, top - 6), INK, 0.45)
    _text(canvas, "dark: full path, light: essential path", (x(0) + 4, top - 8), MUTED, 0.42)


def _draw_cpu_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    points = [(x(time_s), int(bottom - (bottom - top) * share)) for time_s, share in run.cpu]
    if len(points) > 1:
        cv2.polylines(canvas, [np.array(points, np.int32)], False, INK, 1, cv2.LINE_AA)
    _text(canvas, "100 %", (60, top + 8), MUTED, 0.42)
    _text(canvas, "0", (90, bottom), MUTED, 0.42)
    _text(canvas, "CPU busy", (8, top + 34), INK, 0.45)


def _text(canvas: np.ndarray, text: str, origin: tuple[int, int], color: Color, scale: float = 0.5) -> None:
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)

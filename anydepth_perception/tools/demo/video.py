"""The demo's video: every frame with its detections, and a banner of load, depth and latency above it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from anydepth_perception.detection.images import Frame
from anydepth_perception.detection.postprocess import Detections
from anydepth_perception.ros.messages import annotate
from anydepth_perception.tools.demo.canvas import ESSENTIAL, FULL, GOOD, INK, LOAD, MISSED, MUTED, write
from anydepth_perception.tools.demo.children import DemoError
from anydepth_perception.tools.demo.recorder import ServedFrame
from anydepth_perception.tools.demo.run import Run
from anydepth_perception.tools.demo.score import LabelledBoxes

_STAGE_PX = 42
"""Width of a stage in the banner, where there is room for all of them."""


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
    write(banner, f"{time_s:4.1f} s", (8, 22), INK)
    write(banner, "CPU LOAD" if loaded else "idle", (8, 44), MISSED if loaded else MUTED)
    if frame is None:
        write(banner, "not served: a newer frame came first", (110, 33), MISSED)
    else:
        right = _draw_stages(banner, dict(zip(run.space.stages, run.paths(frame), strict=True)), 100, 8)
        _draw_latency(banner, frame, run.deadline_ms, right + 12, width - 10)
    return np.vstack([banner, canvas])


def _as_detections(found: LabelledBoxes | None, class_names: tuple[str, ...]) -> Detections:
    if found is None:
        return Detections.empty()
    class_ids = np.array([class_names.index(name) for name in found.names], np.int32)
    return Detections(found.boxes.astype(np.float32), found.scores.astype(np.float32), class_ids)


def _draw_stages(banner: np.ndarray, paths: Mapping[str, bool], left: int, top: int) -> int:
    """One box for each stage, dark where its path is the full one; returns where they end, in pixels."""
    pitch = min(_STAGE_PX, (banner.shape[1] // 2) // len(paths))
    for index, (stage, full) in enumerate(paths.items()):
        x = left + pitch * index
        cv2.rectangle(banner, (x, top), (x + pitch - 4, top + 20), FULL if full else ESSENTIAL, -1)
        if pitch == _STAGE_PX:  # of more stages the names would run into each other
            write(banner, stage, (x, top + 36), MUTED, 0.32)
    return left + pitch * len(paths)


def _draw_latency(banner: np.ndarray, frame: ServedFrame, deadline_ms: float, left: int, right: int) -> None:
    def x(milliseconds: float) -> int:
        return int(left + (right - left) * min(milliseconds / (1.5 * deadline_ms), 1.0))

    color = MISSED if frame.missed else GOOD
    cv2.rectangle(banner, (left, 8), (x(frame.latency_ms), 28), color, -1)
    cv2.line(banner, (x(deadline_ms), 4), (x(deadline_ms), 32), INK, 2)
    write(banner, f"{frame.latency_ms:.1f} of {deadline_ms:.1f} ms", (left, 46), color, 0.42)

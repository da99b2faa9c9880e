"""The demo's video: every frame with its detections; above it the policies' tallies, load, depth and latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anydepth_perception.detection.images import Frame
from anydepth_perception.detection.postprocess import Detections
from anydepth_perception.ros.messages import annotate
from anydepth_perception.tools.demo.canvas import (
    ESSENTIAL,
    FULL,
    GOOD,
    INK,
    LOAD,
    MISSED,
    MUTED,
    PAPER,
    POLICY_TITLES,
    write,
)
from anydepth_perception.tools.demo.children import DemoError
from anydepth_perception.tools.demo.recorder import ServedFrame
from anydepth_perception.tools.demo.run import Run
from anydepth_perception.tools.demo.score import LabelledBoxes
from anydepth_perception.tools.demo.turns import POLICIES, TurnFrame, policy_at

TALLY_PX = 40
"""Height of the line of tallies."""

_STAGE_PX = 40
"""Width of a stage in the banner, where there is room for all of them."""


def write_video(run: Run, path: Path) -> None:
    """Writes every recorded image with its detections, depth and latency as an MP4 at the camera's rate.

    Raises:
        DemoError: OpenCV cannot write the file.
    """
    served = {frame.stamp_ns: frame for frame in run.recording.served}
    turns = {frame.stamp_ns: frame for policy in POLICIES for frame in run.frames(policy)}
    tallies = {policy: Tally() for policy in POLICIES}
    writer: cv2.VideoWriter | None = None
    for stamp_ns, jpeg in sorted(run.recording.images.items()):
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None, "the demo encoded it itself"
        if stamp_ns in turns:
            tallies[turns[stamp_ns].policy].add(run, turns[stamp_ns])
        image = draw_frame(run, decoded, stamp_ns, served.get(stamp_ns), tallies)
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), run.rate_hz, size)
            if not writer.isOpened():
                raise DemoError(f"{path} cannot be written: this OpenCV has no MP4 encoder")
        writer.write(image)
    if writer is None:
        raise DemoError("no image was received, so there is no video to write")
    writer.release()


@dataclass
class Tally:
    """What a policy has got so far."""

    frames: int = 0
    late: int = 0
    precision: float = 0.0

    def add(self, run: Run, frame: TurnFrame) -> None:
        """Counts a frame in: its configuration's AP, or nothing if it was late."""
        self.frames += 1
        self.late += not frame.on_time
        self.precision += run.precision_in_time(frame)

    def __str__(self) -> str:
        number = max(1, self.frames)
        return f"{100 * self.late / number:.0f} % late, {100 * self.precision / number:.1f} AP in time"


def draw_frame(
    run: Run, image: np.ndarray, stamp_ns: int, frame: ServedFrame | None, tallies: Mapping[str, Tally]
) -> np.ndarray:
    """One image (bgr) with boxes, and above it load, depth per stage, latency against the deadline, and the tallies."""
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
    return np.vstack([_draw_tallies(tallies, policy_at(run.turns, stamp_ns), width), banner, canvas])


def _draw_tallies(tallies: Mapping[str, Tally], current: str | None, width: int) -> np.ndarray:
    """A line of all policies; the one whose turn it is stands out."""
    line = np.full((TALLY_PX, width, 3), PAPER, np.uint8)
    for index, (policy, tally) in enumerate(tallies.items()):
        left = width * index // len(tallies)
        if policy == current:
            cv2.rectangle(line, (left, 0), (width * (index + 1) // len(tallies), TALLY_PX), GOOD, -1)
        color = PAPER if policy == current else MUTED
        write(line, POLICY_TITLES[policy], (left + 8, 15), color, 0.45)
        write(line, str(tally), (left + 8, 33), color, 0.42)
    return line


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

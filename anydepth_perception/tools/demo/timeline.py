"""The demo's timeline: latency against the deadline, path of every stage and CPU load, over the seconds of a run.

It is drawn with OpenCV, as the video is: the demo is to show both where nothing else is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from anydepth_perception.tools.demo.canvas import ESSENTIAL, FULL, GOOD, GRID, INK, LOAD, MISSED, MUTED, write
from anydepth_perception.tools.demo.run import Run


def draw_timeline(run: Run, title: str) -> np.ndarray:
    """The run as a picture [760, 1400, 3] (bgr): latency of every frame, path of every stage, CPU load."""
    canvas = np.full((760, 1400, 3), 255, np.uint8)
    left, right = 110, 1370
    span = max(run.seconds, 1e-3)

    def x(time_s: float) -> int:
        return int(left + (right - left) * min(max(time_s / span, 0.0), 1.0))

    write(canvas, title, (left, 34), INK, 0.6)
    for top, bottom in ((70, 330), (370, 570), (610, 700)):
        cv2.rectangle(canvas, (x(run.load_s[0]), top), (x(run.load_s[1]), bottom), LOAD, -1)
        cv2.rectangle(canvas, (left, top), (right, bottom), MUTED, 1)
    write(canvas, "CPU load", (x(run.load_s[0]) + 6, 86), MISSED, 0.45)
    _draw_latency_panel(canvas, run, x, 70, 330)
    _draw_depth_panel(canvas, run, x, 370, 570)
    _draw_cpu_panel(canvas, run, x, 610, 700)
    step = max(1, round(span / 10))
    for second in range(0, int(span) + 1, step):
        write(canvas, str(second), (x(second) - 5, 722), MUTED, 0.45)
    write(canvas, "seconds", ((left + right) // 2 - 30, 748), MUTED, 0.45)
    return canvas


def _draw_latency_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    highest = 2.0 * run.deadline_ms

    def y(milliseconds: float) -> int:
        return int(bottom - (bottom - top) * min(milliseconds / highest, 1.0))

    for fraction in (0.5, 1.5):
        value = fraction * run.deadline_ms
        cv2.line(canvas, (x(0), y(value)), (x(run.seconds), y(value)), GRID, 1)
        write(canvas, f"{value:.0f}", (70, y(value) + 5), MUTED, 0.45)
    cv2.line(canvas, (x(0), y(run.deadline_ms)), (x(run.seconds), y(run.deadline_ms)), MISSED, 1, cv2.LINE_AA)
    write(canvas, f"{run.deadline_ms:.0f}", (70, y(run.deadline_ms) + 5), MISSED, 0.45)
    for frame in run.recording.served:
        point = (x(run.time_s(frame.stamp_ns)), y(frame.latency_ms))
        cv2.circle(canvas, point, 3, MISSED if frame.missed else GOOD, -1, cv2.LINE_AA)
    write(canvas, "latency", (8, top + 14), INK, 0.45)
    write(canvas, "ms, stamp to", (8, top + 34), MUTED, 0.38)
    write(canvas, "published", (8, top + 50), MUTED, 0.38)


def _draw_depth_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    height = (bottom - top) // len(run.space.stages)
    for row, stage in enumerate(run.space.stages):
        write(canvas, stage, (48, top + row * height + 17), MUTED, 0.42)
    half_s = 0.5 / run.rate_hz
    for frame in run.recording.served:
        time_s = run.time_s(frame.stamp_ns)
        for row, full in enumerate(run.paths(frame)):
            y = top + row * height
            corners = (x(time_s - half_s), y + 2), (x(time_s + half_s), y + height - 2)
            cv2.rectangle(canvas, *corners, FULL if full else ESSENTIAL, -1)
    write(canvas, "depth", (8, top - 6), INK, 0.45)
    write(canvas, "dark: full path, light: essential path", (x(0) + 4, top - 8), MUTED, 0.42)


def _draw_cpu_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    points = [(x(time_s), int(bottom - (bottom - top) * share)) for time_s, share in run.cpu]
    if len(points) > 1:
        cv2.polylines(canvas, [np.array(points, np.int32)], False, INK, 1, cv2.LINE_AA)
    write(canvas, "100 %", (60, top + 8), MUTED, 0.42)
    write(canvas, "0", (90, bottom), MUTED, 0.42)
    write(canvas, "CPU busy", (8, top + 34), INK, 0.45)

"""The demo's timeline: latency of each policy against the deadline, path of every stage, CPU load, over the seconds.

It is drawn with OpenCV, as the video is: the demo is to show both where nothing else is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from anydepth_perception.tools.demo.canvas import (
    ESSENTIAL,
    FULL,
    GOOD,
    GRID,
    INK,
    LOAD,
    MISSED,
    MUTED,
    PAPER,
    POLICY_TITLES,
    write,
)
from anydepth_perception.tools.demo.run import Run
from anydepth_perception.tools.demo.scoreboard import PolicyScore
from anydepth_perception.tools.demo.turns import POLICIES

LATENCY_TOP, LATENCY_HEIGHT, LATENCY_PITCH = 76, 130, 166
DEPTH_TOP, DEPTH_BOTTOM = 576, 736
_CPU_TOP, _CPU_BOTTOM = 772, 842


def draw_timeline(run: Run, title: str, scores: Mapping[str, PolicyScore]) -> np.ndarray:
    """The run as a picture [900, 1400, 3] (bgr): latency in each policy's turns, paths of auto's stages, CPU load."""
    canvas = np.full((900, 1400, 3), PAPER, np.uint8)
    left, right = 110, 1370
    span = max(run.seconds, 1e-3)

    def x(time_s: float) -> int:
        return int(left + (right - left) * min(max(time_s / span, 0.0), 1.0))

    write(canvas, title, (left, 34), INK, 0.55)
    for row, policy in enumerate(POLICIES):
        _draw_latency_panel(canvas, run, x, policy, scores[policy], LATENCY_TOP + row * LATENCY_PITCH)
    _draw_depth_panel(canvas, run, x, DEPTH_TOP, DEPTH_BOTTOM)
    _draw_cpu_panel(canvas, run, x, _CPU_TOP, _CPU_BOTTOM)
    step = max(1, round(span / 10))
    for second in range(0, int(span) + 1, step):
        write(canvas, str(second), (x(second) - 5, _CPU_BOTTOM + 20), MUTED, 0.45)
    write(canvas, "seconds", ((left + right) // 2 - 30, _CPU_BOTTOM + 42), MUTED, 0.45)
    return canvas


def _draw_latency_panel(
    canvas: np.ndarray, run: Run, x: Callable[[float], int], policy: str, score: PolicyScore, top: int
) -> None:
    """The frames of one policy; where it is grey another one had its turn."""
    bottom = top + LATENCY_HEIGHT

    def y(milliseconds: float) -> int:
        return int(bottom - (bottom - top) * min(milliseconds / (2.0 * run.deadline_ms), 1.0))

    cv2.rectangle(canvas, (x(0), top), (x(run.seconds), bottom), GRID, -1)
    for turn in run.turns:
        if turn.policy == policy:
            start_s, end_s = run.time_s(turn.start_ns), run.time_s(turn.end_ns)
            cv2.rectangle(canvas, (x(start_s), top), (x(end_s), bottom), PAPER, -1)
            loaded_s = max(start_s, run.load_s[0]), min(end_s, run.load_s[1])
            if loaded_s[0] < loaded_s[1]:
                cv2.rectangle(canvas, (x(loaded_s[0]), top), (x(loaded_s[1]), bottom), LOAD, -1)
    cv2.line(canvas, (x(0), y(run.deadline_ms)), (x(run.seconds), y(run.deadline_ms)), MISSED, 1, cv2.LINE_AA)
    for frame in run.frames(policy):
        point_x = x(run.time_s(frame.stamp_ns))
        if frame.served is None:  # left out: a cross at the upper edge
            cv2.drawMarker(canvas, (point_x, top + 5), MISSED, cv2.MARKER_TILTED_CROSS, 7, 1, cv2.LINE_AA)
        else:
            color = GOOD if frame.on_time else MISSED
            cv2.circle(canvas, (point_x, y(frame.served.latency_ms)), 3, color, -1, cv2.LINE_AA)
    cv2.rectangle(canvas, (x(0), top), (x(run.seconds), bottom), MUTED, 1)
    title = f"{POLICY_TITLES[policy]}: {score['late_percent']:.1f} % late, {score['on_time_ap']:.1f} AP in time"
    write(canvas, title, (x(0), top - 9), INK, 0.5)
    write(canvas, "latency", (8, top + 14), INK, 0.45)
    write(canvas, "ms, stamp to", (8, top + 34), MUTED, 0.38)
    write(canvas, "published", (8, top + 50), MUTED, 0.38)
    write(canvas, f"{run.deadline_ms:.0f}", (76, y(run.deadline_ms) + 5), MISSED, 0.45)


def _draw_depth_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    height = (bottom - top) // len(run.space.stages)
    for row, stage in enumerate(run.space.stages):
        write(canvas, stage, (48, top + row * height + 17), MUTED, 0.42)
    half_s = 0.5 / run.rate_hz
    for frame in run.frames("auto"):
        if frame.served is None:
            continue
        time_s = run.time_s(frame.stamp_ns)
        for row, full in enumerate(run.paths(frame.served)):
            y = top + row * height
            corners = (x(time_s - half_s), y + 2), (x(time_s + half_s), y + height - 2)
            cv2.rectangle(canvas, *corners, FULL if full else ESSENTIAL, -1)
    cv2.rectangle(canvas, (x(0), top), (x(run.seconds), bottom), MUTED, 1)
    write(canvas, "depth", (8, top + 4), INK, 0.45)
    write(canvas, "depth of auto; dark: full path, light: essential path", (x(0), top - 9), MUTED, 0.42)


def _draw_cpu_panel(canvas: np.ndarray, run: Run, x: Callable[[float], int], top: int, bottom: int) -> None:
    cv2.rectangle(canvas, (x(run.load_s[0]), top), (x(run.load_s[1]), bottom), LOAD, -1)
    cv2.rectangle(canvas, (x(0), top), (x(run.seconds), bottom), MUTED, 1)
    write(canvas, "CPU load", (x(run.load_s[0]) + 6, top + 16), MISSED, 0.45)
    points = [(x(time_s), int(bottom - (bottom - top) * share)) for time_s, share in run.cpu]
    if len(points) > 1:
        cv2.polylines(canvas, [np.array(points, np.int32)], False, INK, 1, cv2.LINE_AA)
    write(canvas, "100 %", (60, top + 8), MUTED, 0.42)
    write(canvas, "0", (90, bottom), MUTED, 0.42)
    write(canvas, "CPU busy", (8, top + 34), INK, 0.45)

"""What each policy got into its deadline: recall and AP of frames in time, over all frames of its turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from anydepth_perception.tools.demo.recorder import split_truth
from anydepth_perception.tools.demo.run import Run
from anydepth_perception.tools.demo.score import Agreement, LabelledBoxes, compare
from anydepth_perception.tools.demo.turns import POLICIES, TurnFrame

_NOTHING = LabelledBoxes(np.zeros((0, 4)), (), np.zeros(0))


class PolicyScore(TypedDict):
    """One policy; a frame that is late, or was not served, has found nothing."""

    frames: int
    late_percent: float
    late_refined_percent: float
    on_time_recall: float
    on_time_ap: float
    latency_ms_p50: float
    latency_ms_p95: float


def score_policies(run: Run) -> dict[str, PolicyScore]:
    """The score of each policy."""
    return {policy: score(run, run.frames(policy)) for policy in POLICIES}


def score(run: Run, frames: Sequence[TurnFrame]) -> PolicyScore:
    """The score of some frames.

    `late_refined_percent` is the part of the late ones that ran more than base: the others nothing would have met.
    `on_time_recall` in [0, 1] is of the true boxes of all of them, at IoU 0.5. `on_time_ap` is the mean, in AP points,
    of the bundle's AP of what ran where the frame was in time, and of 0 where it was not.
    """
    agreement, precision = Agreement(), 0.0
    for frame in frames:
        found = run.recording.detections.get(frame.stamp_ns) if frame.on_time else None
        objects, ignored = split_truth(run.recording.truth[frame.stamp_ns])
        compare(found or _NOTHING, objects, ignored, agreement)
        precision += run.precision_in_time(frame)
    base = str(run.space.base)
    refined = sum(frame.served is not None and not frame.on_time and frame.served.depth != base for frame in frames)
    latencies = [frame.served.latency_ms for frame in frames if frame.served is not None] or [0.0]
    number = max(1, len(frames))
    return {
        "frames": len(frames),
        "late_percent": round(100 * sum(not frame.on_time for frame in frames) / number, 2),
        "late_refined_percent": round(100 * refined / number, 2),
        "on_time_recall": round(agreement.recall, 4),
        "on_time_ap": round(100 * precision / number, 2),
        "latency_ms_p50": round(float(np.percentile(latencies, 50)), 2),
        "latency_ms_p95": round(float(np.percentile(latencies, 95)), 2),
    }


def gain_percent(auto: PolicyScore, other: PolicyScore) -> float:
    """How much more AP in time `auto` has; 0 where the other has none."""
    return round(100 * (auto["on_time_ap"] / other["on_time_ap"] - 1), 2) if other["on_time_ap"] else 0.0

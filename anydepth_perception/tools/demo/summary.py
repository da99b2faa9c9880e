"""The figures of a demo run, for machines and in words."""

from __future__ import annotations

import itertools
import os
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypedDict

import onnxruntime

from anydepth_perception.tools.demo.calibration import Calibration
from anydepth_perception.tools.demo.children import DemoError
from anydepth_perception.tools.demo.recorder import ServedFrame, split_truth
from anydepth_perception.tools.demo.run import DemoOptions, Run
from anydepth_perception.tools.demo.score import Agreement, compare
from anydepth_perception.tools.demo.scoreboard import PolicyScore, gain_percent, score_policies


class Summary(TypedDict):
    """The figures of a run, as they stand in `summary.json`; depths are shares of stages at full, in [0, 1].

    Counts of frames are of the whole run. `policies` are the scores of auto, full and base in their turns; the figures
    from `recall50` to `configurations` are those of auto. `auto_gain_percent` is how much more AP in time auto has than
    the better one of full and base.
    """

    frames_published: int
    frames_received: int
    frames_replaced: int
    frames_lost: int
    frames_served: int
    detections: int
    policies: dict[str, PolicyScore]
    auto_gain_percent: float
    recall50: float
    precision50: float
    latency_ms_p50: float
    latency_ms_p95: float
    deadline_ms: float
    miss_percent: float
    rungs_used: int
    depth_before_load: float
    depth_under_load: float
    depth_after_load: float
    configurations: dict[str, int]
    full_idle_ms: float
    base_idle_ms: float
    base_under_load_ms: float
    full_under_load_ms: float
    load: str
    score_threshold: float
    seed: int
    machine: str


def summarise(run: Run, counts: dict[str, int], calibration: Calibration, options: DemoOptions) -> Summary:
    """The figures of the run.

    A frame that was not served counts as missed. The depth of a third is the median, over the frames of its second
    half, of the share of stages on their full path, in [0, 1].
    """
    auto = [frame.served for frame in run.frames("auto") if frame.served is not None]
    if not auto:
        raise DemoError("no frame was served during the run")
    scores = score_policies(run)
    agreement = agree(run, auto)
    bounds = (0.0, run.load_s[0], run.load_s[1], run.seconds)
    thirds = [depth_between(run, auto, (a + b) / 2, b) for a, b in itertools.pairwise(bounds)]
    return {
        "frames_published": counts["published"],
        "frames_received": counts["received"],
        "frames_replaced": counts["replaced"],
        "frames_lost": counts["published"] - counts["received"],
        "frames_served": len(run.recording.served),
        "detections": sum(len(found.names) for found in run.recording.detections.values()),
        "policies": scores,
        "auto_gain_percent": min(gain_percent(scores["auto"], scores[policy]) for policy in ("full", "base")),
        "recall50": round(agreement.recall, 4),
        "precision50": round(agreement.precision, 4),
        "latency_ms_p50": scores["auto"]["latency_ms_p50"],
        "latency_ms_p95": scores["auto"]["latency_ms_p95"],
        "deadline_ms": run.deadline_ms,
        "miss_percent": scores["auto"]["late_percent"],
        "rungs_used": len({frame.depth for frame in auto}),
        "depth_before_load": thirds[0],
        "depth_under_load": thirds[1],
        "depth_after_load": thirds[2],
        "configurations": dict(Counter(frame.depth for frame in auto).most_common()),
        "full_idle_ms": round(calibration.full_idle.p50, 2),
        "base_idle_ms": round(calibration.base_idle.p50, 2),
        "base_under_load_ms": round(calibration.base_loaded.p50, 2),
        "full_under_load_ms": round(calibration.full_loaded.p50, 2),
        "load": f"{len(os.sched_getaffinity(0))} busy processes of niceness {calibration.niceness}",
        "score_threshold": options.score_threshold,
        "seed": options.seed,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}",
    }


def agree(run: Run, served: Sequence[ServedFrame]) -> Agreement:
    """Detections of served frames against the true boxes, in time or not."""
    total = Agreement()
    for frame in served:
        found = run.recording.detections.get(frame.stamp_ns)
        truth = run.recording.truth.get(frame.stamp_ns)
        if found is not None and truth is not None:
            objects, ignored = split_truth(truth)
            compare(found, objects, ignored, total)
    return total


def depth_between(run: Run, served: Sequence[ServedFrame], start_s: float, end_s: float) -> float:
    """Median share of stages on their full path, of the frames stamped between two times."""

    def share(frame: ServedFrame) -> float:
        return run.space.parse(frame.depth).depth_fraction

    shares = [share(frame) for frame in served if start_s <= run.time_s(frame.stamp_ns) < end_s]
    return round(statistics.median(shares), 3) if shares else 0.0


def gain_in_words(scores: Mapping[str, PolicyScore]) -> str:
    """One line: what auto has won over always full and always base."""
    auto = scores["auto"]
    others = [
        f"{gain_percent(auto, scores[policy]):+.1f} % on always {policy} ({scores[policy]['on_time_ap']:.1f}; "
        f"{scores[policy]['late_percent']:.1f} % late)"
        for policy in ("full", "base")
    ]
    late = f"{auto['late_percent']:.1f} % late ({auto['late_refined_percent']:.1f} % beyond base)"
    return f"auto: {auto['on_time_ap']:.1f} AP in time, {late}: {', '.join(others)}"


def print_summary(summary: Summary, options: DemoOptions) -> None:
    """The figures in words."""
    print(
        f"\n{summary['frames_served']} of {summary['frames_published']} frames served, "
        f"{summary['frames_replaced']} replaced by newer ones, {summary['frames_lost']} lost\n"
        f"auto: latency p50 {summary['latency_ms_p50']} ms, p95 {summary['latency_ms_p95']} ms, "
        f"deadline {summary['deadline_ms']} ms, {summary['miss_percent']} % late\n"
        f"depth (share of stages at full): {summary['depth_before_load']} before the load, "
        f"{summary['depth_under_load']} under it, {summary['depth_after_load']} after it\n"
        f"recall {summary['recall50']:.2f}, precision {summary['precision50']:.2f} at IoU 0.5\n"
        f"{gain_in_words(summary['policies'])}\n"
        f"see {options.output}/demo.mp4, timeline.png, summary.json"
    )

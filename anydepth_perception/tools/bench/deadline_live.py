"""The node over DDS under a load that comes and goes: always full, always base and auto, in turns on one machine."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from anydepth_perception.bundle import Bundle
from anydepth_perception.tools.demo.command import processes
from anydepth_perception.tools.demo.random_load import RandomLoad
from anydepth_perception.tools.demo.recorder import Recorder, ServedFrame
from anydepth_perception.tools.demo.run import DemoOptions
from anydepth_perception.tools.demo.turns import POLICIES, Turn, turn_frames

TURN_S = 2.0
"""Of one policy, before the next one has its turn."""

_IDLE_FRAMES = 300
_HEADROOM = 1.3
_AROUND = 4
"""Frames on both sides of one that tell the slowdown at its time."""


class PolicyFigures(TypedDict):
    """One policy: shares of published frames in percent, AP points."""

    frames: int
    miss_percent: float
    avoidable_miss_percent: float
    effective_ap: float
    mean_ap: float


class LiveFigures(TypedDict):
    """All policies, and what they were measured with."""

    auto: PolicyFigures
    full: PolicyFigures
    base: PolicyFigures
    deadline_ms: float
    full_idle_ms_p50: float
    full_idle_ms_p99: float
    base_idle_ms_p50: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class IdleTimes:
    """Latency and inference of the idle machine, milliseconds."""

    full_p50: float
    full_p99: float
    base_p50: float
    full_inference: float
    base_inference: float


def measure_live(options: DemoOptions, bundle: Bundle, execution: str) -> LiveFigures:
    """Starts camera and node, and measures for `options.seconds`.

    Raises:
        DemoError: a process ends, or does not do what it should.
    """
    with processes(options, bundle, execution=execution) as (recorder, say):
        idle = measure_idle(recorder)
        deadline_ms = round(_HEADROOM * idle.full_p99, 2)
        say(f"idle: full {idle.full_p50:.1f} ms, p99 {idle.full_p99:.1f} ms; deadline {deadline_ms} ms")
        recorder.set_parameters(deadline_ms=deadline_ms, depth="auto")
        recorder.spin_for(3.0)
        recording = recorder.start()
        turns = []
        with RandomLoad(options.seed):
            end_s = time.monotonic() + options.seconds
            for policy in itertools.cycle(POLICIES):
                if time.monotonic() >= end_s:
                    break
                recorder.set_parameters(depth=policy)
                changed_ns = time.time_ns()
                recorder.spin_for(TURN_S)
                turns.append(Turn.between(policy, changed_ns, time.time_ns()))
        recorder.spin_for(1.0)
    policies = figures(turns, list(recording.truth), recording.served, deadline_ms, idle, bundle)
    return {
        "auto": policies["auto"],
        "full": policies["full"],
        "base": policies["base"],
        "deadline_ms": deadline_ms,
        "full_idle_ms_p50": round(idle.full_p50, 2),
        "full_idle_ms_p99": round(idle.full_p99, 2),
        "base_idle_ms_p50": round(idle.base_p50, 2),
        "seconds": options.seconds,
        "seed": options.seed,
    }


def measure_idle(recorder: Recorder) -> IdleTimes:
    """Times at full and at base with no load of ours."""
    served = {}
    for depth in ("full", "base"):
        recorder.set_parameters(depth=depth, deadline_ms=0.0)
        recorder.spin_for(1.0)
        recorder.start()
        recorder.spin_until(lambda: len(recorder.recording.served) >= _IDLE_FRAMES, "frames of an idle machine", 60.0)
        served[depth] = recorder.recording.served
    full = [frame.latency_ms for frame in served["full"]]
    return IdleTimes(
        float(np.median(full)),
        float(np.percentile(full, 99)),
        float(np.median([frame.latency_ms for frame in served["base"]])),
        *(float(np.median([frame.inference_ms for frame in served[depth]])) for depth in ("full", "base")),
    )


def figures(
    turns: Sequence[Turn],
    published: Iterable[int],
    served: Sequence[ServedFrame],
    deadline_ms: float,
    idle: IdleTimes,
    bundle: Bundle,
) -> Mapping[str, PolicyFigures]:
    """Figures of each policy, from the stamps of all published frames and the reports of those that were served.

    A frame that was not served is a miss. A miss is avoidable where the frame, less what its refinements took, would
    have been in time at base (`refinements_ms`). A frame that was not served waited in vain for the one before it: that
    counts as avoidable where the one before ran any refinement in the same turn.
    """
    refined_ms = refinements_ms(sorted(served, key=lambda frame: frame.stamp_ns), idle, bundle)
    rows: dict[str, list[tuple[bool, bool, float]]] = defaultdict(list)
    turn, before_ms = "", 0.0
    for policy, stamp_ns, frame in turn_frames(turns, sorted(published), served):
        if policy != turn:
            turn, before_ms = policy, 0.0
        if frame is None:
            rows[policy].append((True, before_ms > 0.0, 0.0))
            continue
        before_ms = refined_ms[stamp_ns]
        late = frame.latency_ms > deadline_ms
        avoidable = late and frame.latency_ms - before_ms <= deadline_ms
        rows[policy].append((late, avoidable, bundle.average_precision(bundle.space.parse(frame.depth))))
    return {policy: _figures(rows[policy]) for policy in POLICIES}


def refinements_ms(served: Sequence[ServedFrame], idle: IdleTimes, bundle: Bundle) -> dict[int, float]:
    """What each frame would have saved at base, milliseconds by stamp.

    On the idle machine refinements take their share, by GFLOPs, of what full takes beyond base. Here they take that
    times the slowdown of the frame, but no more than the median one of the frames around it: what is beyond is a stall,
    which takes the same milliseconds at any depth.
    """
    gflops, space = bundle.manifest.gflops, bundle.space
    base, full = space.total(gflops, space.base), space.total(gflops, space.full)
    shares = np.array([(space.total(gflops, space.parse(frame.depth)) - base) / (full - base) for frame in served])
    idle_ms = shares * (idle.full_inference - idle.base_inference)
    slowdowns = np.array([frame.inference_ms for frame in served]) / (idle.base_inference + idle_ms)
    around = [
        float(np.median(slowdowns[max(0, index - _AROUND) : index + _AROUND + 1])) for index in range(len(served))
    ]
    refined_ms = idle_ms * np.minimum(slowdowns, around)
    return {frame.stamp_ns: float(ms) for frame, ms in zip(served, refined_ms, strict=True)}


def _figures(rows: Sequence[tuple[bool, bool, float]]) -> PolicyFigures:
    late, avoidable, ap = (np.array(column, float) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 3
    number = max(1, len(rows))
    return {
        "frames": len(rows),
        "miss_percent": round(100.0 * float(late.sum()) / number, 2),
        "avoidable_miss_percent": round(100.0 * float(avoidable.sum()) / number, 2),
        "effective_ap": round(100.0 * float((ap * (1.0 - late)).sum()) / number, 3),
        "mean_ap": round(100.0 * float(ap.sum()) / number, 3),
    }

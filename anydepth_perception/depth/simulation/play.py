"""Plays a policy through a trace, and holds it against one who knows every time beforehand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from anydepth_perception.depth.simulation.trace import Trace
from anydepth_perception.depth.space import DepthConfig, DepthSpace


class Policy(Protocol):
    """What chooses depths: the controller, or a baseline."""

    def open(self, budget_ms: float | None) -> DepthConfig:
        """A frame begins; see `DepthController.open`."""

    def decide(self, point: str, elapsed_ms: float) -> DepthConfig:
        """See `DepthController.decide`."""

    def end(self, inference_ms: float, host_ms: float | None = None) -> None:
        """See `DepthController.end`."""


@dataclass(frozen=True)
class Oracle:
    """The clairvoyant: for each frame the best configuration that is in time.

    Attributes:
        feasible: whether any configuration is in time, bool [frames].
        effective_ap: mean AP, where a frame that nothing meets counts 0.
        base_ap: the same of the base-net.
    """

    feasible: np.ndarray
    effective_ap: float
    base_ap: float


@dataclass(frozen=True)
class Outcome:
    """What a policy reached, in percent and AP points.

    Attributes:
        miss_percent: frames that were late.
        avoidable_percent: frames that were late and that some configuration would have met.
        mean_ap: mean AP, late or not.
        effective_ap: mean AP, where a late frame counts 0.
        oracle_percent: `effective_ap` of the clairvoyant's.
        gain_percent: of what the clairvoyant gains over base; 0 is base, and below it is possible.
    """

    miss_percent: float
    avoidable_percent: float
    mean_ap: float
    effective_ap: float
    oracle_percent: float
    gain_percent: float


@dataclass(frozen=True)
class Played:
    """The outcome, and frame by frame what ran and what it took.

    Attributes:
        outcome: in all.
        ap: AP of what ran, float64 [frames].
        late: bool [frames].
        frame_ms: float64 [frames].
        policy_us: microseconds that the policy itself took, float64 [frames].
        decide_us: those of each decision, float64 [decisions].
    """

    outcome: Outcome
    ap: np.ndarray
    late: np.ndarray
    frame_ms: np.ndarray
    policy_us: np.ndarray
    decide_us: np.ndarray


def clairvoyant(trace: Trace, deadline_ms: float) -> Oracle:
    """The best that could have been done."""
    network = trace.network
    in_time = trace.total_ms <= deadline_ms
    base = network.configs.index(network.space.base)
    best = np.where(in_time, network.values[None, :], 0.0).max(axis=1)
    base_ap = float(in_time[:, base].mean() * network.values[base])
    return Oracle(np.asarray(in_time.any(axis=1)), float(best.mean()), base_ap)


Spans = list[tuple[int, int]]
"""Groups of entries between decisions: indices of the first and behind the last one."""


def spans_of(space: DepthSpace, points: Sequence[str]) -> Spans:
    """The groups that `points` cut the entries into."""
    starts = [space.names.index(group[0]) for group in space.groups(points)]
    return list(zip(starts, [*starts[1:], len(space.names)], strict=True))


def serve(policy: Policy, trace: Trace, frame: int, budget_ms: float | None, spans: Spans) -> tuple[DepthConfig, float]:
    """One frame of a trace: what ran and how long the frame took, milliseconds.

    The policy is asked at the first entry, after the pre-processing, and at each further group of `spans`.
    """
    times, space = trace.step_ms[frame], trace.network.space
    pre_ms, post_ms = float(trace.preprocess_ms[frame]), float(trace.postprocess_ms[frame])
    config = policy.open(budget_ms)
    elapsed_ms = pre_ms
    for start, end in spans:
        config = policy.decide(space.names[start], elapsed_ms)
        for step in space.route(config)[start:end]:
            elapsed_ms += float(times[trace.column[step]])
    policy.end(elapsed_ms - pre_ms, pre_ms + post_ms)
    return config, elapsed_ms + post_ms


class _Timed:
    """A policy and the seconds that it takes: of the newest frame, and of each decision."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.frame_s = 0.0
        self.decisions_s: list[float] = []

    def open(self, budget_ms: float | None) -> DepthConfig:
        begun = time.perf_counter()
        config = self._policy.open(budget_ms)
        self.frame_s = time.perf_counter() - begun
        return config

    def decide(self, point: str, elapsed_ms: float) -> DepthConfig:
        begun = time.perf_counter()
        config = self._policy.decide(point, elapsed_ms)
        self.decisions_s.append(time.perf_counter() - begun)
        self.frame_s += self.decisions_s[-1]
        return config

    def end(self, inference_ms: float, host_ms: float | None = None) -> None:
        begun = time.perf_counter()
        self._policy.end(inference_ms, host_ms)
        self.frame_s += time.perf_counter() - begun


def play(policy: Policy, trace: Trace, deadline_ms: float, points: Sequence[str] = ()) -> Played:
    """Runs all frames, each with the whole deadline as its budget.

    Args:
        policy: is asked at the first entry and at `points`.
        trace: the true times.
        deadline_ms: of each frame, above 0.
        points: as the policy was made for.
    """
    spans, timed, number = spans_of(trace.network.space, points), _Timed(policy), len(trace)
    ap, frame_ms, policy_us = np.empty(number), np.empty(number), np.empty(number)
    for frame in range(number):
        config, frame_ms[frame] = serve(timed, trace, frame, deadline_ms, spans)
        ap[frame] = trace.network.average_precision[config]
        policy_us[frame] = timed.frame_s * 1e6
    late = frame_ms > deadline_ms
    decide_us = np.array(timed.decisions_s) * 1e6
    return Played(_outcome(trace, deadline_ms, ap, late), ap, late, frame_ms, policy_us, decide_us)


def _outcome(trace: Trace, deadline_ms: float, ap: np.ndarray, late: np.ndarray) -> Outcome:
    oracle = clairvoyant(trace, deadline_ms)
    effective = float(np.where(late, 0.0, ap).mean())
    span = oracle.effective_ap - oracle.base_ap
    return Outcome(
        miss_percent=100.0 * float(late.mean()),
        avoidable_percent=100.0 * float((late & oracle.feasible).mean()),
        mean_ap=100.0 * float(ap.mean()),
        effective_ap=100.0 * effective,
        oracle_percent=100.0 * effective / oracle.effective_ap if oracle.effective_ap else 100.0,
        gain_percent=100.0 * (effective - oracle.base_ap) / span if span > 1e-9 else 100.0,
    )


def misses_after_rises(played: Played, trace: Trace, deadline_ms: float, within: int = 10) -> int:
    """The most avoidable misses in the first `within` frames of a load step."""
    avoidable = played.late & clairvoyant(trace, deadline_ms).feasible
    return max((int(avoidable[first : first + within].sum()) for first in trace.load_steps), default=0)

"""The simulation in figures: policies under loads, and on a recorded trace with several deadlines; tables and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anydepth_perception.depth.simulation.baselines import BASELINES, controller
from anydepth_perception.depth.simulation.loads import DEADLINE_MS, KINDS, synthetic
from anydepth_perception.depth.simulation.play import Outcome, Played, misses_after_rises, play
from anydepth_perception.depth.simulation.trace import Trace, read_trace

AUTO, AUTO_ONCE = "auto", "auto_once"
"""The controller with decisions within the frame, and with one at its start."""

POLICIES = (AUTO, AUTO_ONCE, *BASELINES)
_COLUMNS = ("miss_percent", "avoidable_percent", "mean_ap", "effective_ap", "oracle_percent", "gain_percent")
_REMEMBERED = 5


@dataclass(frozen=True)
class Run:
    """One policy on one trace with one deadline; `trace` is a kind of load with its seed, or a file."""

    policy: str
    trace: str
    deadline_ms: float
    outcome: Outcome
    misses_per_rise: int
    decide_us_p50: float
    frame_us_p50: float


def run_policy(policy: str, trace: Trace, deadline_ms: float) -> Played:
    """Plays one of `POLICIES`."""
    points = trace.network.space.default_points if policy == AUTO else ()
    make = BASELINES.get(policy)
    chosen = make(trace.network) if make is not None else controller(trace.network, points)
    return play(chosen, trace, deadline_ms, points)


def simulate(seeds: Sequence[int], frames: int, policies: Sequence[str] = POLICIES, workers: int = 2) -> list[Run]:
    """All policies under all kinds of load."""
    jobs = [(policy, kind, seed, frames) for kind in KINDS for seed in seeds for policy in policies]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_simulate_one, jobs))


def replay(
    path: Path, deadlines_ms: Sequence[float], policies: Sequence[str] = POLICIES, workers: int = 2
) -> list[Run]:
    """All policies on recorded times, with each deadline.

    Raises:
        TraceError: the file cannot be replayed.
    """
    jobs = [(policy, path, deadline_ms) for deadline_ms in deadlines_ms for policy in policies]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_replay_one, jobs))


def summary(runs: Sequence[Run], policy: str = AUTO) -> dict[str, float]:
    """Means over all runs of a policy, and its worst kind of load: the figures that are promised."""
    chosen = [run for run in runs if run.policy == policy]
    kinds = [[run.outcome.avoidable_percent for run in group] for _, group in _by_kind(chosen)]
    return {
        "avoidable_percent_max": round(max(statistics.fmean(values) for values in kinds), 3),
        "avoidable_percent_mean": round(statistics.fmean(run.outcome.avoidable_percent for run in chosen), 3),
        "oracle_percent": round(statistics.fmean(run.outcome.oracle_percent for run in chosen), 2),
        "gain_percent": round(statistics.fmean(run.outcome.gain_percent for run in chosen), 2),
        "effective_ap": round(statistics.fmean(run.outcome.effective_ap for run in chosen), 3),
        "misses_per_load_step": max(
            (run.misses_per_rise for run in chosen if run.trace.startswith("steps ")), default=0
        ),
    }


def cost(runs: Sequence[Run], policy: str = AUTO) -> dict[str, float]:
    """Microseconds of the policy itself, medians over runs."""
    chosen = [run for run in runs if run.policy == policy]
    return {
        "decide_us_p50": round(statistics.median(run.decide_us_p50 for run in chosen), 1),
        "frame_us_p50": round(statistics.median(run.frame_us_p50 for run in chosen), 1),
    }


def markdown(title: str, runs: Sequence[Run], group: Callable[[Run], str]) -> str:
    """A table of policies for each group, and one of the means of all."""
    lines = [f"## {title}", ""]
    groups: dict[str, dict[str, list[Outcome]]] = {}
    for run in runs:
        groups.setdefault(group(run), {}).setdefault(run.policy, []).append(run.outcome)
        groups.setdefault("all", {}).setdefault(run.policy, []).append(run.outcome)
    for name, policies in groups.items():
        lines += [f"### {name}", "", f"| policy | {' | '.join(map(_heading, _COLUMNS))} |", "|---" * 7 + "|"]
        for policy, outcomes in policies.items():
            values = [statistics.fmean(asdict(outcome)[column] for outcome in outcomes) for column in _COLUMNS]
            lines.append(f"| {policy} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
        lines.append("")
    return "\n".join(lines)


def as_rows(runs: Sequence[Run]) -> list[Mapping[str, object]]:
    """For JSON."""
    return [asdict(run) for run in runs]


def _by_kind(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        kinds.setdefault(run.trace.partition(" ")[0], []).append(run)
    yield from kinds.items()


def _heading(column: str) -> str:
    return column.replace("_percent", " %").replace("_", " ")


def _simulate_one(job: tuple[str, str, int, int]) -> Run:
    policy, kind, seed, frames = job
    return _run(policy, f"{kind} {seed}", _remembered(f"{kind} {seed} {frames}", lambda: synthetic(kind, seed, frames)),
                DEADLINE_MS)


def _replay_one(job: tuple[str, Path, float]) -> Run:
    policy, path, deadline_ms = job
    return _run(policy, path.stem, _remembered(str(path), lambda: read_trace(path)), deadline_ms)


_TRACES: dict[str, Trace] = {}


def _remembered(key: str, make: Callable[[], Trace]) -> Trace:
    """A process plays several policies on a trace one after another."""
    if key not in _TRACES:
        while len(_TRACES) >= _REMEMBERED:
            del _TRACES[next(iter(_TRACES))]
        _TRACES[key] = make()
    return _TRACES[key]


def _run(policy: str, name: str, trace: Trace, deadline_ms: float) -> Run:
    played = run_policy(policy, trace, deadline_ms)
    return Run(
        policy, name, round(deadline_ms, 3), played.outcome, misses_after_rises(played, trace, deadline_ms),
        float(np.median(played.decide_us)), float(np.median(played.policy_us)),
    )

"""Pictures of the simulation, by matplotlib (the extra `plots`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anydepth_perception.depth.simulation.report import AUTO, Run

_SHOWN = {AUTO: "C0", "auto_once": "C9", "plan_once": "C4", "full": "C3", "base": "C2", "alert_style": "C1"}


def plot_deadlines(runs: Sequence[Run], path: Path) -> None:
    """AP of frames in time, and avoidable misses, over the deadline; writes a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for policy, colour in _SHOWN.items():
        chosen = sorted((run for run in runs if run.policy == policy), key=lambda run: run.deadline_ms)
        if not chosen:
            continue
        deadlines = [run.deadline_ms for run in chosen]
        left.plot(deadlines, [run.outcome.effective_ap for run in chosen], "o-", color=colour, label=policy, ms=3)
        right.plot(deadlines, [run.outcome.avoidable_percent for run in chosen], "o-", color=colour, label=policy, ms=3)
    left.set(xlabel="deadline [ms]", ylabel="AP of frames in time (a late frame counts 0)")
    right.set(xlabel="deadline [ms]", ylabel="avoidable misses [%]", yscale="symlog", ylim=(0, 100))
    right.axhline(1.0, color="0.6", lw=1, ls="--")
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)

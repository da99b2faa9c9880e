"""The picture of a profile: AP over latency of all its configurations, and the ladder among them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.ladder import Ladder
from anydepth_perception.profile import Profile, RungTimes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_INSTALLED = "matplotlib is not installed (python3 -m pip install matplotlib, or apt install python3-matplotlib)"

_INK, _MUTED, _PALE, _LADDER = "#2d323c", "#878c96", "#e1e4e8", "#1e6e96"
_SIZE_INCHES, _DPI = (12.0, 7.2), 100
_MAX_TAILS = 16
"""More configurations beside the ladder than this are drawn smaller and without their tails."""


class PlotError(RuntimeError):
    """A picture that cannot be drawn or written; the message says why."""


def can_draw() -> bool:
    """Whether matplotlib is there: an extra, which the robot goes without."""
    return importlib.util.find_spec("matplotlib") is not None


def write_plot(profile: Profile, ladder: Ladder, bundle: Bundle, path: Path) -> None:
    """Draws AP over latency of all profiled configurations, the ladder as a line, into a PNG file.

    Raises:
        PlotError: matplotlib is not installed, or the file cannot be written.
    """
    figure = draw_profile(profile, ladder, bundle)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=_DPI)
    except OSError as error:
        raise PlotError(f"{path}: cannot be written: {error.strerror}") from error


def draw_profile(profile: Profile, ladder: Ladder, bundle: Bundle) -> Figure:
    """The picture, 1200x720 pixels: hollow where the AP is estimated, a bar from the usual latency to its p95.

    Raises:
        PlotError: matplotlib is not installed.
    """
    if not can_draw():
        raise PlotError(NOT_INSTALLED)
    from matplotlib.figure import Figure  # only where a picture is asked for

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_PALE)
    axes.set_axisbelow(True)
    axes.margins(0.08)
    on_ladder = [times for rung in ladder.rungs for times in profile.times if times.config == rung.config]
    others = [times for times in profile.times if ladder.find(times.config) is None]
    few = len(others) <= _MAX_TAILS
    _draw_tails(axes, profile, bundle, others if few else [], _MUTED)
    _draw_tails(axes, profile, bundle, on_ladder, _LADDER)
    if others:
        _draw_points(axes, profile, bundle, others, _MUTED, 7.0 if few else 5.0)
        axes.plot([], [], "o", color=_MUTED, label="other configurations")
    axes.plot(*_places(profile, bundle, on_ladder), "o-", color=_LADDER, label="ladder")
    _draw_points(axes, profile, bundle, on_ladder, _LADDER, 7.0)
    for config, name in ((bundle.base, "base"), (bundle.full, "full")):
        for times in profile.times:
            if times.config == config:
                axes.annotate(
                    name, _place(profile, bundle, times), (8, -16), textcoords="offset points", color=_INK
                )
    if bundle.has_accuracy:
        axes.plot([], [], "o", color=_INK, label="AP measured")
        axes.plot([], [], "o", color=_INK, markerfacecolor="white", label="AP estimated")
    axes.legend(loc="lower right", frameon=False)
    kind = "shortest" if profile.is_of_busy_machine else "median"
    axes.set_xlabel(f"inference, ms: {kind}, bar to p95")
    axes.set_ylabel("AP" if bundle.has_accuracy else "GFLOPs over full (no AP known)")
    _write_titles(figure, profile, bundle)
    return figure


def _write_titles(figure: Figure, profile: Profile, bundle: Bundle) -> None:
    facts, load = profile.fingerprint, profile.load_state.others_cpu_load
    busy = "" if load is None else f", others' CPU load {100 * load:.0f} %"
    figure.suptitle(f"{bundle.name}: AP over latency", color=_INK, fontsize="x-large")
    figure.axes[0].set_title(
        f"{facts['cpu_model']}, {facts['backend']} {facts['backend_version']} {facts['precision']}, "
        f"{facts['threads']} threads, {facts['execution']}; {profile.rounds} rounds{busy}",
        color=_MUTED,
        fontsize="medium",
    )


def _draw_points(
    axes: Axes, profile: Profile, bundle: Bundle, chosen: list[RungTimes], color: str, size: float
) -> None:
    for times in chosen:
        face = color if bundle.is_measured(times.config) else "white"
        axes.plot(*_place(profile, bundle, times), "o", color=color, markerfacecolor=face, markersize=size)


def _draw_tails(axes: Axes, profile: Profile, bundle: Bundle, chosen: list[RungTimes], color: str) -> None:
    """Bars to the p95, cut off where they would push the points together into less than half of the width."""
    xs, _ = _places(profile, bundle, list(profile.times))
    limit = 2 * max(xs) - min(xs) if max(xs) > min(xs) else float("inf")
    for times in chosen:
        x, y = _place(profile, bundle, times)
        end = times.inference.p95_ms
        axes.plot([x, min(end, limit)], [y, y], "-", color=color, alpha=0.35, linewidth=1.2)
        if end <= limit:
            axes.plot(end, y, "|", color=color, alpha=0.35)


def _places(profile: Profile, bundle: Bundle, chosen: list[RungTimes]) -> tuple[list[float], list[float]]:
    places = [_place(profile, bundle, times) for times in chosen]
    return [x for x, _ in places], [y for _, y in places]


def _place(profile: Profile, bundle: Bundle, times: RungTimes) -> tuple[float, float]:
    """Milliseconds and AP of a configuration."""
    return profile.idle_ms(times.inference), bundle.average_precision(times.config)

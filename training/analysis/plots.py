"""Plots of evaluation, analysis and training, each written to a PNG."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from training.analysis.depths import space_of
from training.analysis.receptive_field import ReceptiveField

COLOURS = ("#0b6e99", "#d1641c", "#7a7a7a", "#3c8d40", "#8a4f9e", "#b3a018", "#a33b3b", "#3f51b5")
DPI = 130


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def figure_of(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches with `rows` x `columns` axes in reading order."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for each in axes:
        each.grid(alpha=0.25, linewidth=0.6)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def cka_bars(values: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    """CKA at every boundary, a bar for each network: `values[network][kind][stage]`, a panel for each kind."""
    kinds = list(next(iter(values.values())))
    titles = {
        "network": "super-net against base-net (dotted: 0.92)",
        "stage": "each stage alone, both paths on the super-net's input",
    }
    figure, axes = figure_of(9, 2.7 * len(kinds), len(kinds))
    stages = list(next(iter(values.values()))[kinds[0]])
    positions = np.arange(len(stages))
    width = 0.8 / len(values)
    for axis, kind in zip(axes, kinds, strict=True):
        for index, (label, by_kind) in enumerate(values.items()):
            heights = [by_kind[kind][stage] for stage in stages]
            offset = (index - (len(values) - 1) / 2) * width
            bars = axis.bar(positions + offset, heights, width * 0.94, label=label, color=COLOURS[index % len(COLOURS)])
            axis.bar_label(bars, fmt="%.2f", fontsize=6.5, padding=2, rotation=0 if len(values) <= 3 else 90)
        axis.axhline(0.92, color="black", linewidth=0.7, linestyle=":")
        axis.set_xticks(positions, stages)
        axis.set_xlim(-0.6, len(stages) - 0.4)
        axis.set_ylim(0, 1.2)
        axis.set_yticks(np.arange(0, 1.01, 0.2))
        axis.set_ylabel("linear CKA")
        axis.set_title(titles.get(kind, kind), fontsize=10, loc="left")
        axis.grid(axis="x", visible=False)
    axes[-1].legend(frameon=False, ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    save(figure, path)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that no other beats, by ascending cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def depth_scatter(configurations: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> None:
    """AP over GFLOPs of every configuration, with the Pareto ladder; decoder exits in colours.

    `configurations` is what `training.evaluate` writes: by name `depth`, `gflops`, `AP`; `measured` may be False.
    """
    entries = list({entry["depth"]: entry for entry in configurations.values()}.values())
    figure, (axis,) = figure_of(8, 5)
    exits = sorted({exit_of(entry["depth"]) for entry in entries})
    for number, exit_index in enumerate(exits):
        for measured in (True, False):
            chosen = [
                e for e in entries if exit_of(e["depth"]) == exit_index and bool(e.get("measured", True)) == measured
            ]
            if chosen:
                axis.scatter(
                    [e["gflops"] for e in chosen],
                    [100 * e["AP"] for e in chosen],
                    s=16,
                    alpha=0.65,
                    marker="o" if measured else "x",
                    linewidth=0.0 if measured else 0.9,
                    color=COLOURS[number % len(COLOURS)],
                    label=(f"exit {exit_index}" if exit_index else "configuration")
                    + ("" if measured else ", estimated"),
                )
    points = [(entry["gflops"], entry["AP"]) for entry in entries]
    front = pareto(points)
    axis.plot(
        [points[i][0] for i in front],
        [100 * points[i][1] for i in front],
        color="black",
        linewidth=1.1,
        marker="o",
        markersize=3,
        label="Pareto ladder",
    )
    span = max(cost for cost, _ in points) - min(cost for cost, _ in points) or 1.0
    labelled: list[float] = []
    for index in front:
        cost, value = points[index]
        # Labels closer than this would overlap.
        if all(abs(cost - other) > span / 7 for other in labelled):
            _label(axis, entries[index]["depth"], cost, value, above=True)
            labelled.append(cost)
    space = space_of(entry["depth"] for entry in entries)
    for name, config in (("super-net", space.full), ("base-net", space.base)):
        for entry in entries:
            if entry["depth"] == str(config):
                axis.scatter(entry["gflops"], 100 * entry["AP"], s=70, facecolor="none", edgecolor="#a33b3b", zorder=3)
                _label(axis, name, entry["gflops"], entry["AP"], above=False)
    axis.margins(x=0.12, y=0.1)
    axis.set_xlabel("GFLOPs of one frame")
    axis.set_ylabel("AP")
    axis.set_title(title, fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, path)


def estimate_scatter(pairs: Sequence[tuple[float, float]], path: Path, title: str) -> None:
    """Estimated over measured AP, in [0, 1], of configurations that the estimate was not fitted to."""
    figure, (axis,) = figure_of(4.6, 4.6)
    measured, estimated = (100 * np.array(column) for column in zip(*pairs, strict=True))
    low, high = min(measured.min(), estimated.min()), max(measured.max(), estimated.max())
    margin = 0.05 * (high - low) + 0.1
    ends = np.array([low - margin, high + margin])
    axis.fill_between(ends, ends - 0.5, ends + 0.5, color="#0b6e99", alpha=0.12, linewidth=0, label="within 0.5 AP")
    axis.plot(ends, ends, color="black", linewidth=0.8)
    axis.scatter(measured, estimated, s=18, color="#0b6e99")
    axis.set_xlim(*ends)
    axis.set_ylim(*ends)
    axis.set_xlabel("measured AP")
    axis.set_ylabel("estimated AP")
    axis.set_title(title, fontsize=9, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    save(figure, path)


def _label(axis: Axes, text: str, cost: float, value: float, *, above: bool) -> None:
    axis.annotate(
        text,
        (cost, 100 * value),
        textcoords="offset points",
        xytext=(-3, 6) if above else (5, -11),
        ha="right" if above else "left",
        fontsize=7,
    )


def exit_of(depth: str) -> int:
    """The decoder exit that a configuration's text names; 0 where it names none."""
    return int(depth.partition(".d")[2] or 0)


def field_maps(fields: Mapping[str, Mapping[tuple[str, int], ReceptiveField]], path: Path) -> None:
    """Where the central cell of each stage looks: a row for each network, brighter is more, logarithmic."""
    rows = list(fields)
    stages = list(dict.fromkeys(stage for stage, _ in next(iter(fields.values()))))
    aspect = next(iter(fields[rows[0]].values())).gradient.shape
    figure = Figure(
        figsize=(2.6 * len(stages), 0.5 + 2.6 * aspect[0] / aspect[1] * len(rows) + 0.35), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(stages), squeeze=False)
    for row, label in enumerate(rows):
        for column, stage in enumerate(stages):
            axis, found = axes[row][column], fields[label][stage, 1]
            gradient = found.gradient.numpy()
            shown = np.log10(np.maximum(gradient / gradient.max(), 1e-4))
            axis.imshow(shown, cmap="inferno", vmin=-4, vmax=0)
            axis.set_title(
                f"{stage}: σ {found.sigma:.0f} px, half within {found.half_radius:.0f} px", fontsize=8, loc="left"
            )
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row][0].set_ylabel(label, fontsize=9)
    save(figure, path)


def error_bars(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """True positives, misses and the kinds of false positives, a bar for each network or configuration."""
    figure, (left, right) = figure_of(9, 0.9 + 0.45 * max(3, len(rows)), 1, 2)
    labels = list(rows)
    positions = np.arange(len(labels))[::-1]
    parts = (
        (left, {"true_positives": "found", "false_negatives": "missed"}, ("#3c8d40", "#c9c9c9"), "objects"),
        (
            right,
            {
                "false_background": "background",
                "false_place": "wrong place",
                "false_class": "wrong class",
                "false_duplicate": "duplicate",
            },
            ("#a33b3b", "#d1641c", "#b3a018", "#8a4f9e"),
            "false detections",
        ),
    )
    for axis, keys, colours, title in parts:
        start = np.zeros(len(labels))
        for (key, name), colour in zip(keys.items(), colours, strict=True):
            widths = np.array([rows[label][key] for label in labels], float)
            axis.barh(positions, widths, 0.65, left=start, color=colour, label=name)
            start += widths
        axis.set_title(title, fontsize=10, loc="left")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_yticks(positions, labels if axis is left else [""] * len(labels), fontsize=8)
        axis.grid(axis="y", visible=False)
        axis.legend(frameon=False, fontsize=7, ncols=len(keys), loc="upper center", bbox_to_anchor=(0.5, -0.12))
    save(figure, path)


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """The columns of a run's CSV file as float64 arrays; a cell that is no number becomes NaN.

    Raises:
        ValueError: the file has no rows.
        OSError: it cannot be read.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path}: has no rows yet")
    return {name: np.array([_number(row[name]) for row in rows]) for name in rows[0] if name}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over the last `window` values, over fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    starts = np.maximum(np.arange(len(values)) + 1 - window, 0)
    return (sums[1:] - sums[starts]) / (np.arange(len(values)) + 1 - starts)


def training_curves(folders: Mapping[str, Path], path: Path) -> None:
    """Losses of each pass, validation AP, learning rate and gradient norm of one or several runs.

    Reads `log.csv` and, where it is there, `validation.csv` of each folder. Of one run the terms of the losses are
    drawn one by one, of several their sums.

    Raises:
        ValueError: a log has no rows.
        OSError: a log cannot be read.
    """
    figure, axes = figure_of(10, 6.4, 2, 2)
    losses = {"super": axes[0], "base": axes[1]}
    for number, (label, folder) in enumerate(folders.items()):
        log = read_csv(folder / "log.csv")
        window = max(1, len(log["iteration"]) // 50)
        for prefix, axis in losses.items():
            terms = {name: column for name, column in log.items() if name.startswith(f"{prefix}_")}
            if len(folders) > 1 and terms:
                terms = {label: np.sum(list(terms.values()), axis=0)}
            for index, (name, column) in enumerate(terms.items()):
                colour = COLOURS[(number if len(folders) > 1 else index) % len(COLOURS)]
                axis.plot(
                    log["iteration"],
                    smooth(column, window),
                    color=colour,
                    linewidth=1.2,
                    label=name.removeprefix(f"{prefix}_").replace("_", " "),
                )
        colour = COLOURS[number % len(COLOURS)]
        _draw_validation(axes[2], folder / "validation.csv", label if len(folders) > 1 else "", colour)
        axes[3].plot(log["iteration"], smooth(log["gradient_norm"], window), color=colour, linewidth=1.2, label=label)
    axes[0].set_title("super-net: loss" + (" terms" if len(folders) == 1 else ""), fontsize=10, loc="left")
    axes[1].set_title("base-net: loss" + (" terms" if len(folders) == 1 else ""), fontsize=10, loc="left")
    axes[2].set_title("validation AP of the averaged weights", fontsize=10, loc="left")
    axes[3].set_title("gradient's norm before clipping", fontsize=10, loc="left")
    for axis, subdivisions in ((axes[0], (1, 2, 3, 5)), (axes[1], (1, 2, 3, 5)), (axes[3], (1,))):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=subdivisions))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    for axis in axes:
        axis.set_xlabel("iteration", fontsize=8)
        axis.tick_params(labelsize=8)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7)
    save(figure, path)


def _draw_validation(axis: Axes, file: Path, label: str, colour: str) -> None:
    if not file.exists():
        return
    rows = read_csv(file)
    for key, style in (("super", "-"), ("base", "--")):
        if f"{key}_AP" in rows:
            axis.plot(
                rows["iteration"],
                100 * rows[f"{key}_AP"],
                style,
                color=colour,
                marker="o",
                markersize=2.5,
                linewidth=1.2,
                label=f"{label} {key}".strip(),
            )


def sample_sheet(
    samples: Sequence[tuple[Sequence[np.ndarray], str]], titles: Sequence[str], path: Path, *, columns: int = 2
) -> None:
    """Pictures side by side: each sample is as many images [H, W, 3] RGB as there are `titles`, and a caption.

    `columns` samples stand in a row.
    """
    rows = math.ceil(len(samples) / columns)
    height, width = samples[0][0][0].shape[:2]
    figure = Figure(
        figsize=(3.3 * columns * len(titles), rows * (0.26 + 3.3 * height / width)), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(rows, columns * len(titles), squeeze=False)
    for axis in axes.flatten():
        axis.set_axis_off()
    for number, (pictures, caption) in enumerate(samples):
        for index, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
            axis = axes[number // columns][number % columns * len(titles) + index]
            axis.imshow(picture, interpolation="antialiased")
            axis.set_title(f"{title}, {caption}" if index == 0 else title, fontsize=8, loc="left", pad=2)
    save(figure, path)

"""The benchmark's figures for people and machines: the headline with its bars, a Markdown report and a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

REFERENCE = "onnxruntime"
"""The backend whose ratios stand in the headline, as it is the default one."""

INT8_BACKEND = "openvino"
"""The backend that the documentation recommends for INT8 on a CPU."""

Part = Mapping[str, Any]
"""The figures of one part of the benchmark, as `training.bench.parts` returns them."""

Reader = Callable[[Part], "float | None"]


@dataclass(frozen=True)
class Headline:
    """One figure of the headline: its key, the part it is read from, how, what it says, and its bar (or None)."""

    key: str
    part: str
    read: Reader
    meaning: str
    at_most: float | None = None
    at_least: float | None = None

    def bar(self) -> str:
        """The bar as text."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return f">= {self.at_least:g}" if self.at_least is not None else "-"

    def verdict(self, value: float | None) -> str:
        """`pass`, `MISSED`, `not measured`, or nothing without a bar."""
        if value is None:
            return "not measured"
        if self.at_most is not None:
            return "pass" if value <= self.at_most else "MISSED"
        if self.at_least is not None:
            return "pass" if value >= self.at_least else "MISSED"
        return ""


def _ladder(key: str) -> Reader:
    return lambda part: part["backends"][REFERENCE][key]["median"]


def _worse_end(key: str) -> Reader:
    """The larger of full and base; None where it was not measured."""
    return lambda part: max((value["median"] for value in part["backends"][REFERENCE][key].values()), default=None)


def _median(key: str) -> Reader:
    return lambda part: part[key]["median"]


def _host(size: str) -> Reader:
    return lambda part: part[size]["host_ms_p50"]


def _worse_switch(part: Part) -> float:
    return max(kind["median"] for kind in part[REFERENCE].values())


def _int8_speedup(part: Part) -> float:
    figures = part[INT8_BACKEND if INT8_BACKEND in part else REFERENCE]
    return next(iter(figures.values()))["speedup"]["median"]


HEADLINES = (
    Headline("staged_over_whole", "rungs", _worse_end("staged_over_whole"),
             "staged over whole, same depth (the worse of full and base)", at_most=1.10),
    Headline("whole_over_monolithic", "rungs", _worse_end("whole_over_monolithic"),
             "whole over one plain export in a plain session (the worse of full and base)", at_most=1.02),
    Headline("base_over_full", "rungs", _ladder("base_over_full"), "base over full"),
    Headline("base_over_full_vs_gflops", "rungs", _ladder("base_over_full_vs_gflops"),
             "that over the ratio of their GFLOPs", at_most=1.10),
    Headline("switch_over_steady", "switches", _worse_switch,
             "first frame after a change of depth over a steady one (the worse of whole and staged)", at_most=1.05),
    Headline("ladder_rss_over_rung", "memory", lambda part: part[REFERENCE]["ladder_rss_over_rung"],
             "memory of a process with the ladder over one with one rung", at_most=1.8),
    Headline("ours_over_peer", "peer", _median("ours_over_peer"),
             "ours over Hugging Face's RT-DETR R18, same weights, plain session", at_most=1.0),
    Headline("int8_speedup", "int8", _int8_speedup,
             "float32 over INT8 at full, on the backend to take for INT8", at_least=1.8),
    Headline("host_ms_p50_vga", "host", _host("640x480"), "host work beside inference, 640x480, ms", at_most=3.0),
    Headline("host_ms_p50_1080p", "host", _host("1920x1080"), "host work beside inference, 1920x1080, ms", at_most=6.0),
    Headline("yolo_l_base_over_full", "yolo-l", _median("base_over_full"), "YOLO-L at 640x640: base over full"),
    Headline("yolo_l_base_over_full_vs_gflops", "yolo-l", _median("base_over_full_vs_gflops"),
             "YOLO-L: that over the ratio of their GFLOPs"),
    Headline("detr_r50_base_over_full", "detr-r50", _median("base_over_full"), "DETR-R50 at 640x640: base over full"),
    Headline("detr_r50_base_over_full_vs_gflops", "detr-r50", _median("base_over_full_vs_gflops"),
             "DETR-R50: that over the ratio of their GFLOPs"),
)


def headline(parts: Mapping[str, Part | None]) -> dict[str, float | None]:
    """The figures of `HEADLINES` by key; None where they were not measured."""
    values: dict[str, float | None] = {}
    for entry in HEADLINES:
        part = parts.get(entry.part)
        value = entry.read(part) if part else None
        values[entry.key] = None if value is None else round(value, 4)
    return values


def markdown(result: Mapping[str, Any]) -> str:
    """The report, from what the benchmark prints as JSON."""
    machine, parts = result["machine"], result["parts"]
    versions = (f"{name} {facts['version']} {facts['precision']}" for name, facts in machine["backends"].items())
    lines = [
        "# Benchmark",
        "",
        f"{result['bundle']} on {machine['cpu']}, {machine['threads']} threads; {', '.join(versions)}; "
        f"commit {machine['commit']}; {result['seconds']:.0f} s.",
        "",
        "Ratios are medians over rounds of the ratio within each round.",
        "",
        *_table(
            ("figure", "", "value", "bar", ""),
            (
                (f"`{entry.key}`", entry.meaning, _number(result[entry.key]), entry.bar(),
                 entry.verdict(result[entry.key]))
                for entry in HEADLINES
            ),
        ),
    ]
    for name, section in _SECTIONS.items():
        if parts.get(name):
            lines += ["", *section(parts[name])]
    if result["left_out"]:
        lines += ["", "## Left out", "", *(f"- {name}: {reason}" for name, reason in result["left_out"].items())]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ratio(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return "-"
    return f"{values['median']:.3f} ({values['quartiles'][0]:.3f} to {values['quartiles'][1]:.3f})"


def _rungs_section(part: Part) -> list[str]:
    backends = part["backends"]
    lines = [f"## Latency per rung and backend, ms, {part['rounds']} rounds", ""]
    rungs = next(iter(backends.values()))["rungs"]
    lines += _table(
        ("depth", "GFLOPs", "AP", *(f"{name}, over full" for name in backends)),
        (
            (f"`{config}`", f"{rung['gflops']:.2f}", _accuracy(rung),
             *(f"{facts['rungs'][config]['ms']:.1f}, {facts['rungs'][config]['over_full']['median']:.3f}"
               for facts in backends.values()))
            for config, rung in rungs.items()
        ),
    )
    lines += ["", "~ estimated AP.", "", "## Whole, staged and monolithic: median (quartiles)", ""]
    kinds = ("staged_over_whole", "whole_over_monolithic", "whole_over_monolithic_with_our_options")
    return lines + _table(
        ("backend", "depth", *(kind.replace("_", " ") for kind in kinds)),
        (
            (name, f"`{config}`", *(_ratio(facts[kind].get(config)) for kind in kinds))
            for name, facts in backends.items()
            for config in facts["staged_over_whole"]
        ),
    )


def _accuracy(rung: Mapping[str, Any]) -> str:
    return "-" if rung["AP"] is None else f"{100 * rung['AP']:.1f}{'' if rung['AP_measured'] else '~'}"


def _switches_section(part: Part) -> list[str]:
    rows = (
        (name, kind, f"{facts['median']:.3f}", str(facts["switches"]))
        for name, kinds in part.items()
        for kind, facts in kinds.items()
    )
    return ["## First frame after a change of depth", "",
            *_table(("backend", "execution", "over a steady frame", "changes"), rows)]


def _memory_section(part: Part) -> list[str]:
    rows = (
        (name, *(f"{facts['memory'][kind]['rss_mb']:.0f}" for kind in ("rung", "ladder", "staged")),
         f"{facts['ladder_rss_over_rung']:.2f}", f"{facts['staged_rss_over_rung']:.2f}")
        for name, facts in part.items()
    )
    head = ("backend", "one rung", "ladder", "staged", "ladder over one", "staged over one")
    return ["## Resident memory of a fresh process, MB", "", *_table(head, rows)]


def _int8_section(part: Part) -> list[str]:
    rows = (
        (name, f"`{config}`", f"{facts['float32_ms']:.1f}", f"{facts['int8_ms']:.1f}", _ratio(facts["speedup"]))
        for name, configs in part.items()
        for config, facts in configs.items()
    )
    return ["## INT8", "", *_table(("backend", "depth", "float32, ms", "INT8, ms", "speed-up"), rows)]


def _peer_section(part: Part) -> list[str]:
    return [
        "## Hugging Face's RT-DETR in a plain ONNX Runtime session",
        "",
        f"{part['network']}: ours {part['ms']['ours']:.0f} ms, Hugging Face's {part['ms']['peer']:.0f} ms, ratio "
        f"{_ratio(part['ours_over_peer'])}, {part['rounds']} rounds; outputs differ by "
        f"{part['largest_difference']:.1e} at most. Ours casts and scales the image itself; the peer is given floats.",
    ]


def _network_section(part: Part, name: str) -> list[str]:
    return [
        f"## {name}, 640x640, random weights",
        "",
        f"Full {part['gflops']:.1f} GFLOPs, {part['ms']['full']:.0f} ms; base {part['ms']['base']:.0f} ms. Base over "
        f"full: {_ratio(part['base_over_full'])} for {part['gflops_ratio']:.3f} of the GFLOPs; "
        f"{part['rounds']} rounds.",
    ]


def _host_section(part: Part) -> list[str]:
    rows = (
        (size, f"{facts['host_ms_p50']:.2f}", f"{facts['host_ms_p95']:.2f}",
         ", ".join(f"{step} {value:.2f}" for step, value in facts["host_parts_ms_p50"].items()))
        for size, facts in part.items()
    )
    return ["## Host work of a frame, ms", "", *_table(("source image", "p50", "p95", "parts, p50"), rows)]


_SECTIONS: dict[str, Callable[[Part], list[str]]] = {
    "rungs": _rungs_section,
    "switches": _switches_section,
    "memory": _memory_section,
    "int8": _int8_section,
    "peer": _peer_section,
    "yolo-l": lambda part: _network_section(part, "YOLO-L"),
    "detr-r50": lambda part: _network_section(part, "DETR-R50"),
    "host": _host_section,
}


def draw(rungs: Part, title: str, path: Path) -> None:
    """Draws latency per rung and backend, and AP over latency, from the figures of the part `rungs`.

    A rung's latency is the median of full times the rung's ratio to full.
    """
    backends = rungs["backends"]
    picture, (bars, curve) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    picture.suptitle(title)
    width = 0.8 / len(backends)
    for index, (name, facts) in enumerate(backends.items()):
        steps = list(facts["rungs"].values())
        # Ratios taken in turns bear a busy machine; medians of milliseconds alone would shuffle near rungs.
        full_ms = steps[-1]["ms"]
        latencies = [full_ms * step["over_full"]["median"] for step in steps]
        bars.bar([place + index * width for place in range(len(steps))], latencies, width, label=name)
        if all(step["AP"] is not None for step in steps):
            accuracies = [100 * step["AP"] for step in steps]
            line = curve.plot(latencies, accuracies, "-", label=name)[0]
            for latency, accuracy, step in zip(latencies, accuracies, steps, strict=True):
                face = line.get_color() if step["AP_measured"] else "white"
                curve.plot(latency, accuracy, "o", color=line.get_color(), markerfacecolor=face)
    names = list(next(iter(backends.values()))["rungs"])
    bars.set_xticks([place + 0.4 - width / 2 for place in range(len(names))], names, rotation=35, ha="right")
    bars.set(ylabel="latency, ms", title="latency per rung")
    curve.set(xlabel="latency, ms", ylabel="AP, %", title="AP over latency (hollow: estimated AP)")
    curve.grid(alpha=0.3)
    bars.legend()
    if curve.lines:
        curve.legend(loc="lower right")
    picture.savefig(path, dpi=110)
    pyplot.close(picture)

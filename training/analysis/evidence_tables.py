"""The tables of docs/evidence.md, made of the figures that `evidence` measured, and the marked places they go to."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.analysis.errors import KINDS
from training.analysis.tables import table

OURS = "plus feature alignment"
NAIVE = "naive joint"
ABLATION = (
    NAIVE,
    "plus switchable norms",
    "plus aggregators",
    "plus naive distillation",
    "plus target alignment",
    OURS,
)
JOINT = "preset joint"
STATIC_FULL, STATIC_BASE = "static full", "static base"
WITHOUT_FINE = "without FINE"
LONGER = tuple(f"longer {variant}" for variant in (STATIC_FULL, STATIC_BASE, JOINT, WITHOUT_FINE))
SHIPPED = "shipped"
FINE_VARIANTS = {WITHOUT_FINE: "none", "FINE r=1": "1", STATIC_FULL: "2", "FINE r=4": "4"}
CKA_VARIANTS = (OURS, "spatial features", "plus aggregators", NAIVE, STATIC_FULL, LONGER[2])
ERROR_VARIANTS = (WITHOUT_FINE, STATIC_FULL)
SWEEP = {
    "super-net": "FFFF.FFFF",
    "essential path in P2": "EFFF.FFFF",
    "in P2 and P3": "EEFF.FFFF",
    "in P2 to P4": "EEEF.FFFF",
    "in the whole backbone": "EEEE.FFFF",
    "in PAN": "FFFF.FFEE",
    "in FPN and PAN": "FFFF.EEEE",
    "base-net": "EEEE.EEEE",
}
"""The rows of the papers' Tables 2 and 9."""

Documents = Mapping[str, Any]
_MARKED = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def fill(page: str, tables: Mapping[str, str]) -> str:
    """Puts each table between its marks, `<!-- table: NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: the page has a mark without a table or lacks one.
    """
    names = _MARKED.findall(page)
    if set(names) != set(tables):
        raise ValueError(f"the page has marks for {sorted(names)}, the tables are {sorted(tables)}")
    return _MARKED.sub(lambda found: f"<!-- table: {found[1]} -->\n{tables[found[1]]}<!-- end -->", page)


def blocks(documents: Documents) -> dict[str, str]:
    """The tables by the names of their marks; a run that there is not has no row.

    Args:
        documents: by the name of its file, what `training.analysis.evidence` wrote into docs/evidence.
    """
    results = documents["study"]["results"]
    return {
        "setting": _setting(documents["study"]),
        "ablation": _nets(results, ABLATION),
        "static": _nets(results, (STATIC_FULL, STATIC_BASE, OURS, JOINT)),
        "longer": _nets(results, LONGER),
        "presets": _nets(results, (OURS, JOINT, "spatial features")),
        "fine": _fine(results),
        "errors": _errors(documents["errors"]),
        "cka": _cka(documents["cka"]),
        "sweep": _sweep(documents["sweep"]),
        "mixtures": _mixtures(documents["mixtures"]),
        "shipped": _shipped(documents["shipped"]),
        "bars": table(
            ["bar", "asked", "seen", ""], [[bar.what, bar.asked, bar.seen, bar.verdict] for bar in bars(documents)]
        ),
    }


@dataclass(frozen=True)
class Bar:
    """Something that the training should reach, in points of AP unless said otherwise."""

    what: str
    asked: str
    seen: str
    reached: bool

    @property
    def verdict(self) -> str:
        """`met` or `missed`."""
        return "met" if self.reached else "**missed**"


def bars(documents: Documents) -> list[Bar]:
    """All bars, by means over the seeds that both sides of a comparison have."""
    return [*_study_bars(documents), *_shipped_bars(documents["shipped"])]


def _study_bars(documents: Documents) -> list[Bar]:
    results, cka = documents["study"]["results"], documents["cka"]
    lowest = {name: min(_lowest_cka(cka, name)) for name in (OURS, NAIVE, STATIC_FULL)}
    below = max(_below_base(of_seed) for of_seed in documents["mixtures"][OURS].values())
    return [
        *_accuracy_bars(results, OURS, ""),
        *_accuracy_bars(results, LONGER[2], "longer "),
        *(_cka_bar(cka, name) for name in (OURS, LONGER[2], SHIPPED) if name in cka),
        Bar("lowest CKA, naive joint training", "below ours", f"{lowest[NAIVE]:.3f}", lowest[NAIVE] < lowest[OURS]),
        Bar(
            "lowest CKA, plain network", "below ours", f"{lowest[STATIC_FULL]:.3f}", lowest[STATIC_FULL] < lowest[OURS]
        ),
        Bar("lowest mixture below base", "at most 1.0", f"{below:.2f}", below <= 1.0),
        *_fine_bars(results, ""),
        *_fine_bars(results, "longer "),
    ]


def _accuracy_bars(results: Documents, ours: str, prefix: str) -> list[Bar]:
    """Full and base of a variant against the plain networks whose names have the prefix."""
    results = _of_common_seeds(results, ours, prefix + STATIC_FULL, prefix + STATIC_BASE)
    if not results:
        return []
    full, base = _mean(results, ours, "super"), _mean(results, ours, "base")
    over_full = full - _mean(results, prefix + STATIC_FULL, "super")
    over_base = base - _mean(results, prefix + STATIC_BASE, "base")
    return [
        Bar(f"{ours}: full against the plain full network", "at least -0.5", f"{over_full:+.2f}", over_full >= -0.5),
        Bar(f"{ours}: base against the plain base network", "at least -1.0", f"{over_base:+.2f}", over_base >= -1.0),
        Bar(f"{ours}: base against full", "at least -3.0", f"{base - full:+.2f}", base - full >= -3.0),
    ]


def _cka_bar(cka: Documents, variant: str) -> Bar:
    lowest = min(_lowest_cka(cka, variant))
    return Bar(f"lowest CKA at a boundary, {variant}", "at least 0.92", f"{lowest:.3f}", lowest >= 0.92)


def _fine_bars(results: Documents, prefix: str) -> list[Bar]:
    with_fine, without = prefix + STATIC_FULL, prefix + WITHOUT_FINE
    results = _of_common_seeds(results, with_fine, without)
    if not results:
        return []
    gain, small = (
        _mean(results, with_fine, "super", key) / _mean(results, without, "super", key) - 1 for key in ("AP", "APs")
    )
    runs = f"FINE's relative gain{', longer runs' if prefix else ''}"
    return [
        Bar(runs, "above 0 %", f"{100 * gain:+.2f} %", gain > 0),
        Bar(f"{runs}, small objects", "above that on all", f"{100 * small:+.2f} %", small > gain),
    ]


def _shipped_bars(shipped: Documents) -> list[Bar]:
    below = _below_base(shipped["depths"])
    error = 100 * shipped["estimate"]["mean_absolute_error"]
    held_out = shipped["estimate"]["held_out"]
    found = 100 * shipped["test"]["full"]["AP50"]
    return [
        Bar("shipped: lowest mixture below base", "at most 1.0", f"{below:.2f}", below <= 1.0),
        Bar(
            f"shipped: error of the estimated AP over {held_out} configurations",
            "at most 0.5, of 30 or more",
            f"{error:.2f}",
            error <= 0.5 and held_out >= 30,
        ),
        Bar("shipped: AP50 of full", "at least 75", f"{found:.1f}", found >= 75),
    ]


def _of_common_seeds(results: Documents, *variants: str) -> dict[str, dict[str, Any]]:
    """These variants with the seeds that all of them have; nothing where there is none."""
    of_each = [results.get(variant, {}) for variant in variants]
    seeds = [seed for seed in of_each[0] if all(seed in of_seed for of_seed in of_each)]
    return {variant: {seed: results[variant][seed] for seed in seeds} for variant in variants if seeds}


def _values(results: Documents, variant: str, net: str, metric: str = "AP") -> list[float]:
    return [100 * of_seed[net][metric] for of_seed in results[variant].values()]


def _mean(results: Documents, variant: str, net: str, metric: str = "AP") -> float:
    return statistics.mean(_values(results, variant, net, metric))


def _spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and behind it the values of the seeds."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({', '.join(f'{value:.{digits}f}' for value in values)})"


def _setting(study: Documents) -> str:
    height, width = study["image_size"]
    seeds = sorted({seed for by_seed in study["results"].values() for seed in by_seed})
    rows = [
        ["network", study["model"]],
        ["training", f"{study['iterations']} iterations of {study['batch_size']} images"],
        ["network input", f"{width}x{height}"],
        ["evaluation", "aisle test split, 500 images of 320x320"],
        ["seeds", ", ".join(seeds)],
        ["machine", study["machine"]],
    ]
    return table(["", ""], rows)


def _nets(results: Documents, variants: Iterable[str]) -> str:
    rows = []
    for variant in filter(results.__contains__, variants):
        for net in ("super", "base"):
            if net in next(iter(results[variant].values())):
                rest = [f"{_mean(results, variant, net, key):.1f}" for key in ("AP50", "APs", "APm", "APl")]
                rows.append([variant, net, _spread(_values(results, variant, net)), *rest])
    return table(["variant", "net", "AP (seeds)", "AP50", "APs", "APm", "APl"], rows)


def _fine(results: Documents) -> str:
    rows = []
    for variant, ratio in FINE_VARIANTS.items():
        if variant not in results:
            continue
        cells = [_spread(_values(results, variant, "super", key)) for key in ("AP", "APs")]
        rest = [f"{_mean(results, variant, 'super', key):.1f}" for key in ("AP50", "APm", "APl")]
        rows.append([ratio, *cells, *rest])
    return table(["r", "AP (seeds)", "APs (seeds)", "AP50", "APm", "APl"], rows)


def _errors(errors: Documents) -> str:
    rows = []
    for variant in ERROR_VARIANTS:
        for seed, row in errors[variant].items():
            counts = [f"{row[key]:,}" for key in ("true_positives", "false_positives", "false_negatives")]
            shares = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
            kinds = [f"{row[f'false_{kind}']:,}" for kind in KINDS]
            name = "with FINE" if variant == STATIC_FULL else variant
            rows.append([f"{name}, seed {seed}", *counts, *shares, *kinds])
    return table(["", "TP", "FP", "FN", "precision", "recall", "F1", *(f"FP: {kind}" for kind in KINDS)], rows)


def _cka(cka: Documents) -> str:
    stages = list(next(iter(cka[OURS].values()))["network"])
    header = ["boundary", *cka]
    rows = [
        [stage, *(_spread([seed["network"][stage] for seed in by_seed.values()], 3) for by_seed in cka.values())]
        for stage in stages
    ]
    rows.append(["lowest", *(f"{min(_lowest_cka(cka, name)):.3f}" for name in cka)])
    return table(header, rows)


def _lowest_cka(cka: Documents, variant: str) -> list[float]:
    return [min(seed["network"].values()) for seed in cka[variant].values()]


def _sweep(sweep: Documents) -> str:
    by_seed = sweep[OURS]
    first = next(iter(by_seed.values()))
    ours = {name: [100 * seed[depth]["AP"] for seed in by_seed.values()] for name, depth in SWEEP.items()}
    top = statistics.mean(ours["super-net"])
    rows = [
        [name, depth, f"{first[depth]['gflops']:.2f}", _spread(ours[name]), f"{statistics.mean(ours[name]) - top:+.2f}"]
        for name, depth in SWEEP.items()
    ]
    return table(["", "configuration", "GFLOPs", "AP (seeds)", "against super-net"], rows)


def _below_base(depths: Documents) -> float:
    return 100 * (depths["EEEE.EEEE"]["AP"] - min(point["AP"] for point in depths.values()))


def _mixtures(mixtures: Documents) -> str:
    rows = []
    for seed, depths in mixtures[OURS].items():
        ranked = sorted(depths, key=lambda depth: depths[depth]["AP"])
        for label, depth in (
            ("super-net", "FFFF.FFFF"),
            ("base-net", "EEEE.EEEE"),
            ("lowest mixture", ranked[0]),
            ("highest", ranked[-1]),
        ):
            rows.append([f"seed {seed}: {label}", depth, f"{100 * depths[depth]['AP']:.1f}"])
    return table(["", "configuration", "AP"], rows)


def _shipped(shipped: Documents) -> str:
    rows = [
        [name, *(f"{100 * values[key]:.1f}" for key in ("AP", "AP50", "AP75", "APs", "APm", "APl"))]
        for name, values in shipped["test"].items()
    ]
    return table([f"{shipped['name']} on test", "AP", "AP50", "AP75", "APs", "APm", "APl"], rows)

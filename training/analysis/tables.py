"""Markdown tables of the analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.analysis.errors import KINDS, ErrorCounts


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def cka_table(values: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """CKA at every boundary: `values[network][kind][stage]`, a column for each network and kind."""
    columns = [(label, kind) for label, kinds in values.items() for kind in kinds]
    stages = values[columns[0][0]][columns[0][1]]
    rows = [[stage, *(f"{values[label][kind][stage]:.3f}" for label, kind in columns)] for stage in stages]
    lowest = ["lowest", *(f"{min(values[label][kind].values()):.3f}" for label, kind in columns)]
    return table(["boundary", *(f"{label}, {kind}" for label, kind in columns)], [*rows, lowest])


def growth_table(ratios: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Growth of receptive fields: `ratios[network][pair][measure]`."""
    pairs = list(next(iter(ratios.values())))
    columns = [(label, key) for label in ratios for key in ("sigma", "half_radius")]
    names = {"sigma": "σ", "half_radius": "half radius"}
    rows = [[pair, *(f"{ratios[label][pair][key]:.2f}" for label, key in columns)] for pair in pairs]
    return table(["stages", *(f"{label}, {names[key]}" for label, key in columns)], rows)


def error_table(counts: Mapping[str, ErrorCounts]) -> str:
    """The columns of FINE's Table 5, and the kinds of false positives; of two rows also the relative change."""
    header = ["", "images", "TP", "FP", "FN", "precision", "recall", "F1", *(f"FP: {kind}" for kind in KINDS)]
    rows = [
        [
            label,
            f"{count.images:,}",
            f"{count.true_positives:,}",
            f"{count.false_positives:,}",
            f"{count.false_negatives:,}",
            f"{count.precision:.3f}",
            f"{count.recall:.3f}",
            f"{count.f1:.3f}",
            *(f"{count.kinds.get(kind, 0):,}" for kind in KINDS),
        ]
        for label, count in counts.items()
    ]
    if len(counts) == 2:
        before, after = (list(count.row().values())[1:-1] for count in counts.values())
        rows.append(["change", "", *(_change(a, b) for a, b in zip(before, after, strict=True))])
    return table(header, rows)


def _change(before: float, after: float) -> str:
    return f"{100 * (after - before) / before:+.2f} %" if before else "-"


def exit_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """AP and duplicates of each exit."""
    header = ["configuration", "AP", "AP with NMS", "objects found", "duplicates", "per object", "NMS removes"]
    return table(
        header,
        [
            [
                depth,
                f"{100 * row['AP']:.1f}",
                f"{100 * row['AP_with_nms']:.1f}",
                f"{row['true_positives']:,}",
                f"{row['false_duplicate']:,}",
                f"{row['duplicates_per_object']:.3f}",
                f"{row['overlapping']:,}",
            ]
            for depth, row in rows.items()
        ],
    )


def token_table(ratios: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Field of a high token over that of a low one, by FINE's r: `ratios[network][pair][r]`; 1 is aligned."""
    rows = [
        [f"{label}, {pair}", *(f"{value:.2f}" for value in by_ratio.values())]
        for label, pairs in ratios.items()
        for pair, by_ratio in pairs.items()
    ]
    first = next(iter(next(iter(ratios.values())).values()))
    return table(["tokens, high over low", *(f"r = {ratio}" for ratio in first)], rows)

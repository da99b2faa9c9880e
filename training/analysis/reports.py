"""The analyses as functions: each writes JSON, a Markdown table and a plot into a folder, and returns what it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig, DepthConfigError
from anydepth_perception.detection.preprocess import Preprocessor
from training.analysis import plots, tables
from training.analysis.cka import boundary_cka
from training.analysis.depths import space_of
from training.analysis.errors import SCORE_THRESHOLD, count_detections, count_errors, suppressed
from training.analysis.receptive_field import growth, receptive_fields, token_alignment
from training.analysis.samples import draw
from training.evaluation.coco import metrics_by_depth
from training.evaluation.images import EvaluationImages
from training.evaluation.results import model_results
from training.recipes.weights import Weights

TOKEN_RATIOS = (1, 2, 4)
"""r of FINE's token sampling, as in its ablation."""

EXIT_NMS_IOU = 0.7
"""Above it two boxes of a class are one object; queries that repeat each other overlap far more."""


def tensors(weights: Weights, images: EvaluationImages, device: torch.device) -> Iterator[Tensor]:
    """The images one by one as the network reads them, [1, 3, H, W] in [0, 1]."""
    preprocess = Preprocessor(*weights.recipe.image_size, resize=weights.recipe.resize)
    for index in range(len(images)):
        preprocess(images.load(index)[0])
        yield torch.from_numpy(preprocess.buffer.copy()).permute(0, 3, 1, 2).float().to(device) / 255


def analyse_cka(networks: Mapping[str, Weights], images: EvaluationImages, output: Path) -> dict[str, Any]:
    """CKA of the two paths at each boundary, of every network on the same images; writes cka.json, .md and .png."""
    values = {
        label: boundary_cka(weights.model, tensors(weights, images, device_of(weights)))
        for label, weights in networks.items()
    }
    plots.cka_bars(values, output / "cka.png")
    return _write(output / "cka", {"images": images.description, "cka": values}, tables.cka_table(values))


def analyse_receptive_fields(
    networks: Mapping[str, Weights], images: EvaluationImages, output: Path
) -> dict[str, Any]:
    """Sizes of the backbone's effective receptive fields and their growth; writes erf.json, .md and .png."""
    fields = {
        label: receptive_fields(weights.model, tensors(weights, images, device_of(weights)), TOKEN_RATIOS)
        for label, weights in networks.items()
    }
    ratios = {label: growth(of_network) for label, of_network in fields.items()}
    tokens = {label: token_alignment(of_network, TOKEN_RATIOS) for label, of_network in fields.items()}
    sizes = {
        label: {
            stage: {"sigma": field.sigma, "half_radius": field.half_radius}
            for (stage, pool), field in of_network.items()
            if pool == 1
        }
        for label, of_network in fields.items()
    }
    plots.field_maps(fields, output / "erf.png")
    text = tables.growth_table(ratios) + "\n" + tables.token_table(tokens)
    document = {"images": images.description, "pixels": sizes, "growth": ratios, "token_ratio": tokens}
    return _write(output / "erf", document, text)


def analyse_errors(
    networks: Mapping[str, Weights],
    depths: Sequence[str],
    images: EvaluationImages,
    output: Path,
    *,
    score_threshold: float = SCORE_THRESHOLD,
) -> dict[str, Any]:
    """True and false positives and misses as in FINE's Table 5; writes errors.json, .md and .png."""
    counts = {}
    for label, weights in networks.items():
        configs = {depth: parse_depth(weights, depth) for depth in depths}
        results = model_results(weights.model, _distinct(configs.values()), images, weights.recipe)
        for depth, config in configs.items():
            name = " ".join([label] * (len(networks) > 1) + [depth] * (len(depths) > 1 or len(networks) == 1))
            counts[name] = count_errors(results, str(config), score_threshold=score_threshold)
    rows = {name: count.row() for name, count in counts.items()}
    plots.error_bars(rows, output / "errors.png")
    document = {"images": images.description, "score_threshold": score_threshold, "errors": rows}
    return _write(output / "errors", document, tables.error_table(counts))


def analyse_exits(
    weights: Weights, images: EvaluationImages, output: Path, *, score_threshold: float = SCORE_THRESHOLD
) -> dict[str, Any]:
    """AP and duplicates of each decoder exit, on full and on essential paths; writes exits.json and .md.

    Raises:
        DepthConfigError: the network has no decoder.
    """
    model = weights.model
    if not model.num_exits:
        raise DepthConfigError(f"{model.name} has no decoder exits, whose duplicates could be counted")
    configs = [
        DepthConfig(paths, index)
        for paths in _distinct([model.space.full.full_paths, model.space.base.full_paths])
        for index in range(1, model.num_exits + 1)
    ]
    results = model_results(model, configs, images, weights.recipe)
    with_nms = suppressed(results, EXIT_NMS_IOU)
    metrics = metrics_by_depth(results, images.class_names)
    metrics_with_nms = metrics_by_depth(with_nms, images.class_names)
    rows = {}
    for depth in map(str, configs):
        row = count_errors(results, depth, score_threshold=score_threshold).row()
        row["AP"], row["AP_with_nms"] = metrics[depth]["AP"], metrics_with_nms[depth]["AP"]
        row["overlapping"] = count_detections(results, depth, score_threshold) - count_detections(
            with_nms, depth, score_threshold
        )
        rows[depth] = row
    document = {
        "images": images.description,
        "score_threshold": score_threshold,
        "nms_iou_threshold": EXIT_NMS_IOU,
        "exits": rows,
    }
    return _write(output / "exits", document, tables.exit_table(rows))


def analyse_samples(weights: Weights, images: EvaluationImages, output: Path, *, score_threshold: float = 0.4) -> None:
    """Pictures of super-net and base-net side by side; writes samples.png."""
    configs = {"super-net": weights.model.space.full, "base-net": weights.model.space.base}
    results = model_results(weights.model, _distinct(configs.values()), images, weights.recipe)
    samples = []
    for index in range(len(images)):
        image, truth = images.load(index)
        found = results[truth.image_id].detections
        pictures = [
            draw(image, truth, found[str(config)], images.class_names, score_threshold=score_threshold)
            for config in configs.values()
        ]
        samples.append((pictures, f"image {truth.image_id}"))
    plots.sample_sheet(samples, list(configs), output / "samples.png")


def analyse_depths(named: Mapping[str, Mapping[str, Any]], output: Path, title: str) -> dict[str, Any]:
    """The Pareto ladder of configurations, and the worst of them; writes depths.json, .md and .png.

    Args:
        named: by name `depth`, `gflops` and `AP`, as `training.evaluate` writes them, base and full among them.
        output: folder.
        title: of the plot.

    Raises:
        ValueError: full or base is missing.
    """
    entries = {entry["depth"]: entry for entry in named.values()}
    space = space_of(entries)
    ends = {"full": str(space.full), "base": str(space.base)}
    for name, depth in ends.items():
        if depth not in entries:
            raise ValueError(f"{name} ({depth}) is not among the {len(entries)} configurations; evaluate it too")
    plots.depth_scatter(named, output / "depths.png", title)
    depths = list(entries)
    front = plots.pareto([(entries[depth]["gflops"], entries[depth]["AP"]) for depth in depths])
    # Exits before that of the base-net are cheaper than it by design; the bar is about mixtures of paths.
    mixtures = [depth for depth in depths if (space.parse(depth).exit or 0) >= (space.base_exit or 0)]
    lowest = min(mixtures, key=lambda depth: entries[depth]["AP"])
    document = {
        "configurations": len(entries),
        **{name: _point(entries[depth]) for name, depth in ends.items()},
        "lowest_mixture": _point(entries[lowest]),
        "lowest_below_base": entries[ends["base"]]["AP"] - entries[lowest]["AP"],
        "ladder": [_point(entries[depths[index]]) for index in front],
    }
    rows = [("full", ends["full"]), ("base", ends["base"]), ("lowest mixture", lowest)]
    rows += [("ladder", depths[index]) for index in front]
    table = tables.table(
        ["", "configuration", "GFLOPs", "AP"],
        [
            [label, depth, f"{entries[depth]['gflops']:.3f}", f"{100 * entries[depth]['AP']:.1f}"]
            for label, depth in rows
        ],
    )
    return _write(output / "depths", document, table)


def _point(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("depth", "gflops", "AP")}


def analyse_estimate(accuracy: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """The fitted AP of held-out configurations beside the measured one; writes estimate.json, .md and .png.

    Args:
        accuracy: as `training.accuracy` writes it.
        output: folder.

    Raises:
        KeyError: it has no estimate with held-out configurations.
    """
    estimated: dict[str, float] = accuracy["estimate"]["held_out"]
    measured = {depth: accuracy["configurations"][depth]["AP"] for depth in estimated}
    errors = [abs(estimated[depth] - measured[depth]) for depth in estimated]
    document = {
        "dataset": accuracy["dataset"],
        "configurations_measured": len(accuracy["configurations"]),
        "num_held_out": len(errors),
        "mean_absolute_error": sum(errors) / max(1, len(errors)),
        "largest_error": max(errors, default=0.0),
        "smallest_measured": min(measured.values(), default=0.0),
        "largest_measured": max(measured.values(), default=0.0),
    }
    if errors:
        title = f"{len(errors)} held-out configurations, mean error {100 * document['mean_absolute_error']:.2f} AP"
        pairs = [(measured[depth], estimated[depth]) for depth in estimated]
        plots.estimate_scatter(pairs, output / "estimate.png", title)
    rows = [
        [depth, f"{100 * measured[depth]:.2f}", f"{100 * estimated[depth]:.2f}", f"{100 * error:.2f}"]
        for depth, error in zip(estimated, errors, strict=True)
    ]
    rows.append(["mean", "", "", f"{100 * document['mean_absolute_error']:.2f}"])
    table = tables.table(["held out", "measured AP", "estimated AP", "error"], rows)
    return _write(output / "estimate", document, table)


def bundle_depths(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Cost and AP of every configuration of a bundle by its accuracy table, as `plots.depth_scatter` takes them."""
    return {
        str(config): {
            "depth": str(config),
            "gflops": bundle.gflops(config),
            "AP": bundle.average_precision(config),
            "measured": bundle.is_measured(config),
        }
        for config in bundle.space.all()
    }


def parse_depth(weights: Weights, text: str) -> DepthConfig:
    """A configuration of a network by its text; `base` is that of the network itself.

    Raises:
        DepthConfigError: it cannot be read, or the network does not have it.
    """
    if text == "base":
        return weights.model.space.base
    return weights.model.parse_config(text)


def device_of(weights: Weights) -> torch.device:
    """Where the network is."""
    return next(weights.model.parameters()).device


def _distinct(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))


def _write(stem: Path, document: dict[str, Any], table: str) -> dict[str, Any]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
    return document

"""Analyses of trained networks: CKA, receptive fields, errors, duplicates, AP over GFLOPs, curves, samples."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.depth.config import DepthConfig, DepthConfigError, all_configs, base_exit
from anydepth_perception.preprocess import Preprocessor
from training.analysis import plots, tables
from training.analysis.cka import boundary_cka
from training.analysis.errors import SCORE_THRESHOLD, count_detections, count_errors, suppressed
from training.analysis.receptive_field import growth, receptive_fields, token_alignment
from training.analysis.samples import draw
from training.distributed import join_processes
from training.evaluate import model_results
from training.evaluation.coco import metrics_by_depth
from training.evaluation.images import EvaluationImages, add_image_options, chosen_images
from training.recipe import RecipeError
from training.weights import Weights, load_weights

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
        for paths in _distinct([model.full_config().full_paths, model.base_config().full_paths])
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
    configs = {"super-net": weights.model.full_config(), "base-net": weights.model.base_config()}
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


def analyse_depths(named: Mapping[str, Mapping[str, Any]], num_exits: int, output: Path, title: str) -> dict[str, Any]:
    """The Pareto ladder of configurations, and the worst of them; writes depths.json, .md and .png.

    Args:
        named: by name `depth`, `gflops` and `AP`, as `training.evaluate` writes them, base and full among them.
        num_exits: of the detector.
        output: folder.
        title: of the plot.

    Raises:
        ValueError: full or base is missing.
    """
    entries = {entry["depth"]: entry for entry in named.values()}
    ends = {"full": str(DepthConfig.full(num_exits)), "base": str(DepthConfig.base(num_exits))}
    for name, depth in ends.items():
        if depth not in entries:
            raise ValueError(f"{name} ({depth}) is not among the {len(entries)} configurations; evaluate it too")
    plots.depth_scatter(named, output / "depths.png", title)
    depths = list(entries)
    front = plots.pareto([(entries[depth]["gflops"], entries[depth]["AP"]) for depth in depths])
    # Exits before that of the base-net are cheaper than it by design; the bar is about mixtures of paths.
    mixtures = [depth for depth in depths if DepthConfig.parse(depth, num_exits).exit in _late_exits(num_exits)]
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


def _late_exits(num_exits: int) -> tuple[int | None, ...]:
    first = base_exit(num_exits)
    return (None,) if first is None else tuple(range(first, num_exits + 1))


def _point(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("depth", "gflops", "AP")}


def bundle_depths(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Cost and AP of every configuration of a bundle by its accuracy table, as `plots.depth_scatter` takes them."""
    return {
        str(config): {
            "depth": str(config),
            "gflops": bundle.gflops(config),
            "AP": bundle.average_precision(config),
            "measured": bundle.is_measured(config),
        }
        for config in all_configs(bundle.num_exits)
    }


def parse_depth(weights: Weights, text: str) -> DepthConfig:
    """A configuration of a network by its text; `base` is that of the network itself.

    Raises:
        DepthConfigError: it cannot be read, or the network does not have it.
    """
    if text == "base":
        return weights.model.base_config()
    config = DepthConfig.parse(text, weights.model.num_exits)
    weights.model.check_config(config)
    return config


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


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.analyse cka ours=a.safetensors static=b.safetensors --output folder`."""
    options = _parser().parse_args(arguments)
    try:
        if options.analysis == "depths":
            if options.metrics.is_dir():
                named = bundle_depths(Bundle.load(options.metrics))
            else:
                named = json.loads(options.metrics.read_text(encoding="utf-8"))
            num_exits = max(plots.exit_of(entry["depth"]) for entry in named.values())
            analyse_depths(named, num_exits, options.output, options.title or options.metrics.stem)
        elif options.analysis == "curves":
            plots.training_curves(_labelled(options.runs, by_folder=True), options.output / "curves.png")
        else:
            _analyse(options)
    except (BundleError, OSError, RecipeError, ValueError, KeyError) as error:
        reason = f"{options.metrics} lacks {error}" if isinstance(error, KeyError) else error
        print(f"error: {reason}", file=sys.stderr)
        return 1
    print(f"wrote {options.analysis} to {options.output}")
    return 0


def _analyse(options: argparse.Namespace) -> None:
    device = join_processes(options.device).device
    networks = {label: load_weights(path) for label, path in _labelled(options.weights).items()}
    for weights in networks.values():
        weights.model.to(device)
    first, *others = networks.values()
    for other in others:
        if other.class_names != first.class_names:
            raise ValueError(f"networks of different classes: {first.class_names} and {other.class_names}")
    images = chosen_images(options, first.class_names)
    if options.analysis == "cka":
        analyse_cka(networks, images, options.output)
    elif options.analysis == "erf":
        analyse_receptive_fields(networks, images, options.output)
    elif options.analysis == "errors":
        analyse_errors(
            networks, options.depth.split(","), images, options.output, score_threshold=options.score_threshold
        )
    elif options.analysis == "exits":
        analyse_exits(first, images, options.output, score_threshold=options.score_threshold)
    else:
        analyse_samples(first, images, options.output)


def _labelled(texts: Sequence[str], *, by_folder: bool = False) -> dict[str, Path]:
    """Paths by their labels, of texts like `ours=a.safetensors`; without a label the file's name is it.

    Raises:
        ValueError: a label comes twice.
    """
    paths: dict[str, Path] = {}
    for text in texts:
        label, separator, path = text.partition("=")
        if not separator:
            label, path = (Path(text).name if by_folder else Path(text).stem), text
        if label in paths:
            raise ValueError(f"two inputs are called {label!r}; give each its own LABEL=PATH")
        paths[label] = Path(path)
    return paths


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training.analyse", description=__doc__)
    analyses = parser.add_subparsers(dest="analysis", required=True)
    for name, help_text, many in (
        ("cka", "alignment of the two paths at each stage boundary", True),
        ("erf", "effective receptive fields of the backbone's stages", True),
        ("errors", "true and false positives and misses", True),
        ("exits", "AP and duplicates of each decoder exit", False),
        ("samples", "detections of super-net and base-net side by side", False),
    ):
        analysis = analyses.add_parser(name, help=help_text, description=help_text)
        analysis.add_argument("weights", nargs="+" if many else 1, metavar="[LABEL=]FILE", help="weights files")
        add_image_options(analysis)
        analysis.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
        if name == "errors":
            analysis.add_argument("--depth", default="full", help="configurations, by commas (default: full)")
        if name in ("errors", "exits"):
            analysis.add_argument("--score-threshold", type=float, default=SCORE_THRESHOLD, help="(default: 0.5)")
    depths = analyses.add_parser("depths", help="AP over GFLOPs of every configuration")
    depths.add_argument("metrics", type=Path, metavar="FILE", help="JSON of training.evaluate, or a bundle folder")
    depths.add_argument("--title")
    curves = analyses.add_parser("curves", help="training curves, from folders of training.train")
    curves.add_argument("runs", nargs="+", metavar="[LABEL=]FOLDER")
    for analysis in analyses.choices.values():
        analysis.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where files are written")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""COCO metrics of a bundle, or of a network in PyTorch, at one, several or all depth configurations."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.depth.space import DepthConfigError
from training.data.processes import Processes
from training.evaluation.coco import METRICS
from training.evaluation.depths import depths_of_bundle, depths_of_model, gflops_of
from training.evaluation.options import add_image_options, chosen_images
from training.evaluation.results import PRECISIONS, bundle_metrics, model_metrics
from training.loop.distributed import join_processes, leave_processes
from training.loop.options import add_device_option
from training.recipes.recipe import RecipeError
from training.recipes.weights import load_weights


def markdown(title: str, named: dict[str, dict[str, Any]], metrics: Sequence[str] = METRICS) -> str:
    """A table of COCO's figures, in percent, a row for each configuration."""
    lines = [
        title,
        "",
        "| depth | configuration | GFLOPs | " + " | ".join(metrics) + " |",
        "|---|---|---:|" + "---:|" * len(metrics),
    ]
    for name, values in named.items():
        figures = " | ".join("-" if values[key] < 0 else f"{100 * values[key]:.1f}" for key in metrics)
        lines.append(f"| {name} | {values['depth']} | {values['gflops']:.3f} | {figures} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.evaluate --bundle aisle-yolo-t --depth full,base --split test --json`."""
    options = _parser().parse_args(arguments)
    try:
        processes = join_processes(options.device)
        title, named = _evaluate(options, processes)
    except (BundleError, DepthConfigError, RecipeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        leave_processes()
    if not processes.first:
        return 0
    table = markdown(title, named)
    print(table if options.all_metrics else markdown(title, named, METRICS[:6]))
    if options.output:
        options.output.write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(table, encoding="utf-8")
    if options.json:
        print(json.dumps(named))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training.evaluate", description=__doc__)
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--bundle", help="bundle folder, or the name of a shipped bundle; runs on ONNX Runtime")
    network.add_argument("--weights", type=Path, help="weights file of training.train or training.convert, in PyTorch")
    parser.add_argument(
        "--depth",
        default="full,base",
        help="configurations, separated by commas; `all`; or `ladder`, those that a bundle's node starts with "
        "(default: full,base)",
    )
    add_image_options(parser)
    parser.add_argument(
        "--precision", default="float32", choices=PRECISIONS, help="with --bundle; float16 rounds every tensor"
    )
    add_device_option(parser, "with --weights")
    parser.add_argument("--batch-size", type=int, default=1, help="with --weights (default: 1)")
    parser.add_argument("--all-metrics", action="store_true", help="print all twelve figures, not only the APs")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON on the last line")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    return parser


def _evaluate(options: argparse.Namespace, processes: Processes) -> tuple[str, dict[str, dict[str, Any]]]:
    """The title of the table, and per name asked for the metrics with `depth` and `gflops`."""
    progress = processes.first and sys.stderr.isatty()
    if options.bundle:
        bundle = Bundle.load(find_bundle(options.bundle))
        named = depths_of_bundle(options.depth, bundle)
        configs = list(dict.fromkeys(named.values()))
        images = chosen_images(options, bundle.class_names)
        metrics = bundle_metrics(
            bundle, configs, images, precision=options.precision, processes=processes, progress=progress
        )
        gflops = {str(config): bundle.gflops(config) for config in configs}
        source = f"{options.bundle} in {bundle.manifest.provenance.get('precision', options.precision)}"
    else:
        weights = load_weights(options.weights)
        model = weights.model.to(processes.device)
        named = depths_of_model(options.depth, model)
        configs = list(dict.fromkeys(named.values()))
        images = chosen_images(options, weights.class_names)
        metrics = model_metrics(
            model,
            configs,
            images,
            weights.recipe,
            batch_size=options.batch_size,
            processes=processes,
            progress=progress,
        )
        gflops = gflops_of(weights, configs)
        source = f"{options.weights} in PyTorch"
    return f"{source}, {images.description}", {
        name: {"depth": str(config), "gflops": round(gflops[str(config)], 6), **metrics[config]}
        for name, config in named.items()
        if metrics
    }


if __name__ == "__main__":
    sys.exit(main())

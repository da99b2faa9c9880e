"""Analyses of trained networks: CKA, receptive fields, errors, exits, depths, estimates, curves, samples, reports."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.bundle.bundle import MANIFEST_FILE
from training.analysis import plots
from training.analysis.errors import SCORE_THRESHOLD
from training.analysis.reports import (
    analyse_cka,
    analyse_depths,
    analyse_errors,
    analyse_estimate,
    analyse_exits,
    analyse_receptive_fields,
    analyse_samples,
    bundle_depths,
)
from training.analysis.run_page import write_run_page
from training.evaluation.options import add_image_options, chosen_images
from training.loop.distributed import join_processes
from training.loop.options import add_device_option
from training.recipes.recipe import RecipeError
from training.recipes.weights import load_weights


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.analyse cka ours=a.safetensors static=b.safetensors --output folder`."""
    options = _parser().parse_args(arguments)
    try:
        if options.analysis == "depths":
            if options.metrics.is_dir():
                named = bundle_depths(Bundle.load(options.metrics))
            else:
                named = json.loads(options.metrics.read_text(encoding="utf-8"))
            analyse_depths(named, options.output, options.title or options.metrics.stem)
        elif options.analysis == "estimate":
            file = options.metrics / MANIFEST_FILE if options.metrics.is_dir() else options.metrics
            document = json.loads(file.read_text(encoding="utf-8"))
            analyse_estimate(document["accuracy"] if options.metrics.is_dir() else document, options.output)
        elif options.analysis == "report":
            write_run_page(options.run, options.output or options.run)
        elif options.analysis == "curves":
            plots.training_curves(_labelled(options.runs, by_folder=True), options.output / "curves.png")
        else:
            _analyse(options)
    except (BundleError, OSError, RecipeError, ValueError, KeyError) as error:
        reason = f"{options.metrics} lacks {error}" if isinstance(error, KeyError) else error
        print(f"error: {reason}", file=sys.stderr)
        return 1
    print(f"wrote {options.analysis} to {options.output or options.run}")
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
        add_device_option(analysis)
        if name == "errors":
            analysis.add_argument("--depth", default="full", help="configurations, by commas (default: full)")
        if name in ("errors", "exits"):
            analysis.add_argument("--score-threshold", type=float, default=SCORE_THRESHOLD, help="(default: 0.5)")
    depths = analyses.add_parser("depths", help="AP over GFLOPs of every configuration")
    depths.add_argument("metrics", type=Path, metavar="FILE", help="JSON of training.evaluate, or a bundle folder")
    depths.add_argument("--title")
    estimate = analyses.add_parser("estimate", help="estimated over measured AP of held-out configurations")
    estimate.add_argument("metrics", type=Path, metavar="FILE", help="JSON of training.accuracy, or a bundle folder")
    curves = analyses.add_parser("curves", help="training curves, from folders of training.train")
    curves.add_argument("runs", nargs="+", metavar="[LABEL=]FOLDER")
    for analysis in analyses.choices.values():
        analysis.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where files are written")
    page = analyses.add_parser("report", help="an HTML page about a finished run: depths, classes, worst pictures")
    page.add_argument("run", type=Path, metavar="FOLDER", help="of training.train")
    page.add_argument("--output", type=Path, metavar="FOLDER", help="where report.html is written (default: the run's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Exports a weights file to a bundle: one ONNX segment per stage and path, the manifest, accuracy and references."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.bundle.plain_run import reference_configs
from training.evaluation.images import EvaluationDataError, aisle_images
from training.export.accuracy import measure_bundle
from training.export.bundle import export_bundle
from training.export.references import write_references
from training.recipes.recipe import RecipeError
from training.recipes.weights import Weights, load_weights


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.export aisle-yolo-t.safetensors aisle-yolo-t.anydepth --measure 500`."""
    parser = argparse.ArgumentParser(prog="training.export", description=__doc__)
    parser.add_argument("weights", type=Path, help="weights file of training.train or training.convert")
    parser.add_argument("bundle", type=Path, help="folder to write, NAME.anydepth")
    parser.add_argument(
        "--measure",
        type=int,
        metavar="COUNT",
        default=0,
        help="fill the accuracy table from COUNT validation images, as training.accuracy does",
    )
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the input; the recipe's by default"
    )
    parser.add_argument(
        "--references-only",
        action="store_true",
        help="leave the segments of an existing bundle as they are, and write its reference outputs anew",
    )
    options = parser.parse_args(arguments)
    try:
        weights = load_weights(options.weights)
        if options.references_only:
            written = write_references(Bundle.load(options.bundle), weights.model)
            print(f"wrote references of {len(reference_configs(written))} configurations to {options.bundle}")
            return 0
        bundle = _export(weights, options)
    except (RecipeError, BundleError, EvaluationDataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in options.bundle.rglob("*") if file.is_file())
    print(f"wrote {options.bundle}: {len(bundle.manifest.segments)} segments, {size / 1e6:.1f} MB")
    for config in (bundle.full, bundle.base):
        accuracy = f", AP {bundle.average_precision(config):.3f}" if bundle.has_accuracy else ""
        print(f"  {config}: {bundle.gflops(config):.3f} GFLOPs{accuracy}")
    return 0


def _export(weights: Weights, options: argparse.Namespace) -> Bundle:
    image_size = tuple(options.image_size) if options.image_size else None
    if not options.measure:
        return export_bundle(weights, options.bundle, image_size=image_size)
    images = aisle_images("val", options.measure, weights.class_names)

    def measure(bundle: Bundle) -> Mapping[str, Any]:
        return measure_bundle(bundle, images, progress=sys.stderr.isatty())

    return export_bundle(weights, options.bundle, image_size=image_size, measure=measure)


if __name__ == "__main__":
    sys.exit(main())

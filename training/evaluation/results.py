"""COCO metrics of a bundle, or of a network in PyTorch, at one, several or all depth configurations."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.detection.detector import Detections
from anydepth_perception.detection.postprocess import Postprocessor
from anydepth_perception.detection.preprocess import Geometry, Preprocessor
from training.evaluation.coco import METRICS, ImageResult, Results, gather_results, metrics_by_depth
from training.evaluation.float16_emulation import emulate_float16
from training.evaluation.flops import count_parts, flops_at, meta_model
from training.evaluation.images import AisleImages, EvaluationImages, Truth, add_image_options, chosen_images
from training.evaluation.network import BundleNetwork, Network, TorchNetwork, walk
from training.families import family_of
from training.loop.distributed import ALONE, Processes, join_processes, leave_processes
from training.models.detector import AnyDepthDetector
from training.recipes.recipe import Recipe, RecipeError
from training.recipes.weights import Weights, load_weights

SCORE_THRESHOLD = 0.001
MAX_DETECTIONS = 100
PRECISIONS = ("float32", "float16")
"""`float16` is emulated; INT8 is a bundle of its own."""


def detect_all(
    network: Network,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    preprocess: Preprocessor,
    postprocess: Postprocessor,
    *,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Results:
    """What `network` finds in all images at each of `configs`; every process gets the results of all.

    Args:
        network: runs on batches of its size.
        configs: each at most once.
        images: process i of n takes every n-th image from the i-th on.
        preprocess: fits an image to the network.
        postprocess: decodes the raw outputs.
        processes: who shares the work.
        progress: show a bar.
    """
    local: Results = {}
    mine = range(processes.rank, len(images), processes.count)
    bar = tqdm(total=len(mine), unit="image", disable=not progress)
    for start in range(0, len(mine), network.batch_size):
        fitted, geometries, truths = [], [], []
        for index in mine[start : start + network.batch_size]:
            image, truth = images.load(index)
            geometries.append(preprocess(image))
            fitted.append(preprocess.buffer.copy())
            truths.append(truth)
        network.load(np.concatenate(fitted))
        local |= _detect_batch(network, configs, postprocess, geometries, truths)
        bar.update(len(truths))
    bar.close()
    return gather_results(local, processes)


def _detect_batch(
    network: Network,
    configs: Sequence[DepthConfig],
    postprocess: Postprocessor,
    geometries: Sequence[Geometry],
    truths: Sequence[Truth],
) -> Results:
    found: list[dict[str, Detections]] = [{} for _ in truths]
    for same in walk(network, configs):
        boxes, logits = network.outputs()
        for row, geometry in enumerate(geometries):
            detections = postprocess(
                boxes[row : row + 1],
                logits[row : row + 1],
                geometry,
                score_threshold=SCORE_THRESHOLD,
                max_detections=MAX_DETECTIONS,
            )
            found[row].update({str(config): detections for config in same})
    return {
        truth.image_id: ImageResult(truth, {str(config): by_depth[str(config)] for config in configs})
        for truth, by_depth in zip(truths, found, strict=True)
    }


def bundle_results(
    bundle: Bundle,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    *,
    precision: str = "float32",
    processes: Processes = ALONE,
    progress: bool = False,
) -> Results:
    """What a bundle finds on ONNX Runtime in one of `PRECISIONS`, with the node's pre- and post-processing."""
    if precision == "float16":
        with tempfile.TemporaryDirectory() as folder:
            rounded = emulate_float16(bundle, Path(folder) / f"{bundle.name}-float16.anydepth")
            return bundle_results(rounded, configs, images, processes=processes, progress=progress)
    manifest = bundle.manifest
    preprocess = Preprocessor(
        manifest.input.height, manifest.input.width, resize=manifest.input.resize, pad_value=manifest.input.pad_value
    )
    postprocess = Postprocessor(
        nms=manifest.postprocess.nms, iou_threshold=manifest.postprocess.iou_threshold, multi_label=True
    )
    network = BundleNetwork(bundle, create_backend("onnxruntime"))
    return detect_all(network, configs, images, preprocess, postprocess, processes=processes, progress=progress)


def model_results(
    model: AnyDepthDetector,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    recipe: Recipe,
    *,
    batch_size: int = 1,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Results:
    """What a network in PyTorch finds, where it is and in float32, as its bundle would."""
    for config in configs:
        model.check_config(config)
    preprocess = Preprocessor(*recipe.image_size, resize=recipe.resize)
    needs = family_of(model.name).outputs
    postprocess = Postprocessor(nms=needs.nms, iou_threshold=needs.iou_threshold, multi_label=needs.multi_label)
    network = TorchNetwork(model, recipe.image_size, batch_size)
    return detect_all(network, configs, images, preprocess, postprocess, processes=processes, progress=progress)


def evaluate_bundle(
    bundle: Bundle,
    configs: Sequence[DepthConfig],
    split: str,
    count: int,
    *,
    precision: str = "float32",
    progress: bool = False,
) -> dict[str, dict[str, float]]:
    """COCO metrics of a bundle per configuration (by its text) on the first `count` images of an aisle split."""
    images = AisleImages(split, count)
    results = bundle_results(bundle, configs, images, precision=precision, progress=progress)
    return metrics_by_depth(results, images.class_names)


def parse_depths(text: str, bundle: Bundle | None, model: AnyDepthDetector | None) -> dict[str, DepthConfig]:
    """Configurations by the name asked for: `full,base,FFEE.FFEE`, `all`, or `ladder` (of a bundle).

    Raises:
        DepthConfigError: one that cannot be read, that the detector lacks, or a ladder without a bundle.
    """
    configs: dict[str, DepthConfig] = {}
    for name in text.split(","):
        if name == "all":
            every = model.space.all() if model else bundle.space.all() if bundle else ()
            configs |= {str(config): config for config in every}
        elif name == "ladder":
            if bundle is None:
                raise DepthConfigError("the ladder follows from a bundle's accuracy table; give --bundle")
            configs |= {str(config): config for config in bundle.default_configs()}
        elif model is not None:
            configs[name] = model.space.base if name == "base" else model.parse_config(name)
        else:
            configs[name] = DepthConfig.parse(name, bundle.space.num_exits if bundle else 0)
    return configs


def gflops_of(weights: Weights, configs: Sequence[DepthConfig]) -> dict[str, float]:
    """GFLOPs of one frame of a network in PyTorch, as executed, by configuration."""
    recipe = weights.recipe
    fine = recipe.fine_settings if recipe.fine else None
    counted = meta_model(recipe.model, len(weights.class_names), fine=fine, any_depth=recipe.any_depth_settings)
    parts = count_parts(counted, recipe.image_size)
    return {str(config): flops_at(parts, counted.space, config).total / 1e9 for config in configs}


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
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="with --weights")
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
        named = parse_depths(options.depth, bundle, None)
        configs = list(dict.fromkeys(named.values()))
        images = chosen_images(options, bundle.class_names)
        results = bundle_results(
            bundle, configs, images, precision=options.precision, processes=processes, progress=progress
        )
        gflops = {str(config): bundle.gflops(config) for config in configs}
        source = f"{options.bundle} in {bundle.manifest.provenance.get('precision', options.precision)}"
    else:
        weights = load_weights(options.weights)
        model = weights.model.to(processes.device)
        named = parse_depths(options.depth, None, model)
        configs = list(dict.fromkeys(named.values()))
        images = chosen_images(options, weights.class_names)
        results = model_results(
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
    metrics = metrics_by_depth(results, images.class_names) if processes.first else {}
    return f"{source}, {images.description}", {
        name: {"depth": str(config), "gflops": round(gflops[str(config)], 6), **metrics[str(config)]}
        for name, config in named.items()
        if metrics
    }


if __name__ == "__main__":
    sys.exit(main())

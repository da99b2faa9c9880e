"""Exports a weights file to a bundle: one ONNX segment per stage and path, and the manifest."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anydepth_perception.bundle import (
    Bundle,
    BundleError,
    Reference,
    ReferenceRows,
    choose_rows,
    rewrite_bundle,
    write_bundle,
)
from anydepth_perception.bundle.plain_run import reference_configs
from anydepth_perception.depth.config import STAGES
from anydepth_perception.depth.space import ESSENTIAL, EXITS, FULL, DepthConfig, Step
from anydepth_perception.detection.preprocess import Preprocessor
from training.data.aisle import render_image
from training.evaluation.results import evaluate_bundle
from training.export.model_card import AISLE_DATASET, model_card
from training.families import family_of, segment_modules
from training.models.detector import AnyDepthDetector
from training.models.segments import segments_by_step
from training.recipes.recipe import Recipe, RecipeError
from training.recipes.weights import Weights, load_weights

PAD_VALUE = 114
"""Grey of the borders of a letterboxed image, as in training."""

OPSET = 17
"""Reads everywhere from ONNX Runtime 1.12 and TensorRT 8.5 on."""


def export_segment(
    module: nn.Module, name: str, inputs: dict[str, Tensor], outputs: list[str]
) -> tuple[onnx.ModelProto, dict[str, Tensor], float]:
    """One segment as ONNX, what it puts out for `inputs`, and its GFLOPs (2 x multiply-adds).

    Boundary tensors keep their names; everything inside is prefixed with the segment's name, so that
    segments can be concatenated.
    """
    module.eval()
    arguments = tuple(inputs.values())
    # Fused attention kernels are not counted everywhere; the plain one is.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        values = module(*arguments)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            arguments,
            buffer,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamo=False,
        )
    model = onnxslim.slim(onnx.load_from_string(buffer.getvalue()))
    _prefix_names(model.graph, f"{name}/", keep={*inputs, *outputs})
    model.graph.name = name
    values = values if isinstance(values, tuple) else (values,)
    return model, dict(zip(outputs, values, strict=True)), counter.get_total_flops() / 1e9


def _prefix_names(graph: onnx.GraphProto, prefix: str, keep: set[str]) -> None:
    def rename(name: str) -> str:
        return name if not name or name in keep else prefix + name.lstrip("/")

    for node in graph.node:
        node.name = rename(node.name)
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    del graph.value_info[:]


def export_segments(
    model: AnyDepthDetector, image_size: tuple[int, int]
) -> tuple[dict[str, onnx.ModelProto], dict[str, float]]:
    """Every segment of a detector at `image_size` (height, width), in execution order, and the GFLOPs of each."""
    models: dict[str, onnx.ModelProto] = {}
    gflops: dict[str, float] = {}
    maps: dict[str, Tensor] = {"images": torch.zeros(1, *image_size, 3, dtype=torch.uint8)}
    for segment in segment_modules(model, image_size):
        models[segment.name], values, gflops[segment.name] = export_segment(
            segment.module, segment.name, {source: maps[source] for source in segment.inputs}, list(segment.outputs)
        )
        maps.update(values)
    return models, gflops


def manifest_of(
    name: str,
    model: AnyDepthDetector,
    recipe: Recipe,
    class_names: list[str],
    gflops: dict[str, float],
    provenance: dict[str, Any],
    accuracy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a bundle, without the sums that `write_bundle` adds."""
    height, width = recipe.image_size
    family = family_of(recipe.model)
    space, segments = model.space, segments_by_step(model.space)
    # A stage with nothing to skip runs its full segment on both paths.
    stages = {
        stage: {
            path: segments[Step(stage, path if stage in space.skippable else FULL)][0] for path in (ESSENTIAL, FULL)
        }
        for stage in space.stages
    }
    exits = {step.way.removeprefix("d"): list(names) for step, names in segments.items() if step.entry == EXITS}
    return {
        "name": name,
        "model": recipe.model,
        "family": family.name,
        "input": {"name": "images", "height": height, "width": width, "resize": recipe.resize, "pad_value": PAD_VALUE},
        "outputs": {"boxes": "boxes", "logits": "logits"},
        "class_names": class_names,
        "num_exits": space.num_exits,
        "pipeline": list(space.names),
        "stages": stages,
        "exits": exits,
        "segments": {segment: {"gflops": round(value, 6)} for segment, value in gflops.items()},
        "postprocess": {"nms": family.outputs.nms, "iou_threshold": family.outputs.iou_threshold},
        "accuracy": accuracy or {"dataset": "none", "metric": "AP (COCO 0.50:0.95), in [0,1]", "configurations": {}},
        "provenance": provenance,
    }


def single_stage_configs(bundle: Bundle) -> list[DepthConfig]:
    """What estimates rest on: full, base, and full with each single stage essential or at each earlier exit."""
    full = bundle.full
    singles = [
        DepthConfig(tuple(other != stage for other in STAGES), full.exit)
        for stage, segments in bundle.manifest.stages.items()
        if segments[ESSENTIAL] != segments[FULL]
    ]
    exits = [DepthConfig(full.full_paths, index) for index in range(1, bundle.space.num_exits)]
    return [full, bundle.base, *singles, *exits]


def reference_in_torch(model: AnyDepthDetector, bundle: Bundle, image: np.ndarray) -> Reference:
    """References of `reference_configs`, computed by torch: what no inference engine has a part in.

    `image` is uint8 [1, H, W, 3] at network size.
    """
    height, width = image.shape[1:3]
    scale = torch.tensor([width, height, width, height])
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    rows: dict[DepthConfig, ReferenceRows] = {}
    for config in reference_configs(bundle):
        with torch.no_grad():
            outputs = model.eval()(pixels, model.space.executed(config))
        rows[config] = choose_rows((outputs["boxes"] / scale).numpy(), outputs["logits"].numpy())
    return Reference(image, rows)


def reference_image(bundle: Bundle) -> np.ndarray:
    """An aisle scene fitted to the input of `bundle`, uint8 [1, H, W, 3]: things to detect, and texture."""
    source = bundle.manifest.input
    fit = Preprocessor(source.height, source.width, resize=source.resize, pad_value=source.pad_value)
    fit(render_image("val", 0, (640, 480)).image)
    return fit.buffer.copy()


def provenance_of(weights: Weights) -> dict[str, Any]:
    """Where weights come from, for the manifest."""
    if weights.provenance is not None:
        return {**weights.provenance, "commit": git_commit()}
    recipe = weights.recipe
    samples, dataset = ("aisle scenes", AISLE_DATASET) if recipe.coco is None else ("images", recipe.coco.annotations)
    passes = " and ".join(f"{name}-net" for name in recipe.trained_passes)
    learnt = "labels" if recipe.distillation is None else "labels and self-distillation"
    provenance = {
        "recipe": f"{recipe.model}, {weights.iteration} iterations of {recipe.batch_size} {samples}",
        "training": f"{passes} on {learnt}",
        "dataset": Path(dataset).name,
        "iterations": weights.iteration,
        "seed": recipe.seed,
        "commit": git_commit(),
    }
    return provenance if recipe.initial_weights is None else {**provenance, "started_from": recipe.initial_weights}


def git_commit() -> str:
    """The commit that the working tree is at, or `unknown`."""
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.export models/aisle-yolo-t.safetensors models/aisle-yolo-t.anydepth`."""
    parser = argparse.ArgumentParser(prog="training.export", description=__doc__)
    parser.add_argument("weights", type=Path, help="weights file of training.train or training.convert")
    parser.add_argument("bundle", type=Path, help="folder to write, NAME.anydepth")
    parser.add_argument(
        "--measure",
        type=int,
        metavar="COUNT",
        default=0,
        help="fill the accuracy table: AP on COUNT validation images for full, base and each single stage essential",
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
        recipe = weights.recipe
        if options.references_only:
            return rewrite_references(options.bundle, weights.model)
        if options.image_size:
            recipe = dataclasses.replace(recipe, image_size=tuple(options.image_size))
        models, gflops = export_segments(weights.model, recipe.image_size)
        name = options.bundle.name.removesuffix(".anydepth")
        manifest = manifest_of(name, weights.model, recipe, weights.class_names, gflops, provenance_of(weights))
        bundle = write_bundle(options.bundle, manifest, models)
        if options.measure:
            manifest["accuracy"] = measure_accuracy(bundle, options.measure)
        bundle = write_bundle(options.bundle, manifest, models, {"MODEL_CARD.md": model_card(manifest).encode()})
        # Last: which configurations make up the default ladder depends on their accuracy.
        bundle = rewrite_bundle(bundle, reference=reference_in_torch(weights.model, bundle, reference_image(bundle)))
    except (RecipeError, BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in options.bundle.rglob("*") if file.is_file())
    print(f"wrote {options.bundle}: {len(models)} segments, {size / 1e6:.1f} MB")
    for config in (bundle.full, bundle.base):
        accuracy = f", AP {bundle.average_precision(config):.3f}" if bundle.has_accuracy else ""
        print(f"  {config}: {bundle.gflops(config):.3f} GFLOPs{accuracy}")
    return 0


def rewrite_references(path: Path, model: AnyDepthDetector) -> int:
    """Computes the references of the bundle at `path` with `model`, whose export it is, and stores them."""
    bundle = Bundle.load(path)
    written = rewrite_bundle(bundle, reference=reference_in_torch(model, bundle, reference_image(bundle)))
    print(f"wrote references of {len(reference_configs(written))} configurations to {path}")
    return 0


def measure_accuracy(bundle: Bundle, count: int) -> dict[str, Any]:
    """The accuracy table of the manifest, measured on the first `count` images of the validation split."""
    metrics = evaluate_bundle(bundle, single_stage_configs(bundle), "val", count, progress=sys.stderr.isatty())
    return {
        "dataset": f"aisle val, {count} images",
        "metric": "AP (COCO 0.50:0.95), in [0,1]",
        "configurations": {
            config: {"AP": round(values["AP"], 5), "AP50": round(values["AP50"], 5), "measured": True}
            for config, values in metrics.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())

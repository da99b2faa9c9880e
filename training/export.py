"""Exports trained weights to a bundle: one ONNX segment per stage and path, and the manifest."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import onnxslim
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anydepth_perception.bundle import Bundle, BundleError, write_bundle
from anydepth_perception.depth.config import ESSENTIAL, FULL, STAGES, DepthConfig
from training.evaluate import NMS_IOU_THRESHOLD, evaluate_bundle
from training.model_card import model_card
from training.models.folding import fold
from training.models.yolo import HEAD_INPUTS, STAGE_INPUTS, AnyDepthYolo, TopDownStage
from training.models.yolo_head import YoloHead
from training.recipe import Recipe, RecipeError, from_dict

OPSET = 17
"""Reads everywhere from ONNX Runtime 1.12 and TensorRT 8.5 on."""


class ImageStem(nn.Module):
    """uint8 [1, H, W, 3] RGB -> the stem's output: cast, scale and transposition done in the network."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, images: Tensor) -> Tensor:
        """Scales to [0, 1], moves the channels first, runs the stem."""
        return self.stem(images.permute(0, 3, 1, 2).to(torch.float32) / 255)


class StageOnPath(nn.Module):
    """A stage bound to one path, its feature maps as positional arguments; FINE is a segment of its own."""

    def __init__(self, stage: nn.Module, path: str) -> None:
        super().__init__()
        self.stage = fold(stage, path)
        self.path = path

    def forward(self, *maps: Tensor) -> Tensor:
        """Runs the stage on its path."""
        run = self.stage.fuse if isinstance(self.stage, TopDownStage) else self.stage
        return run(*maps, path=self.path)


class Alignment(nn.Module):
    """FINE of a top-down stage: the same on both paths, so exported once."""

    def __init__(self, stage: TopDownStage) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Refines `low` under the guidance of `high`."""
        return self.stage.align(high, low)


class RawOutputs(nn.Module):
    """The head's raw outputs: boxes [1, N, 4] xyxy in [0, 1] of the input, logits [1, N, C]."""

    def __init__(self, head: YoloHead, height: int, width: int) -> None:
        super().__init__()
        self.head = fold(head, FULL)
        self.register_buffer("scale", torch.tensor([width, height, width, height], dtype=torch.float32))

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts from P3, P4, P5."""
        outputs = self.head(features)
        return outputs["boxes"] / self.scale, outputs["logits"]


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
    model: AnyDepthYolo, image_size: tuple[int, int]
) -> tuple[dict[str, onnx.ModelProto], dict[str, float]]:
    """Every segment of a detector at `image_size` (height, width), and the GFLOPs of each."""
    height, width = image_size
    models: dict[str, onnx.ModelProto] = {}
    gflops: dict[str, float] = {}
    images = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    maps: dict[str, Tensor] = {"images": images}

    def add(module: nn.Module, name: str, sources: tuple[str, ...], outputs: list[str]) -> None:
        models[name], values, gflops[name] = export_segment(
            module, name, {source: maps[source] for source in sources}, outputs
        )
        maps.update(values)

    add(ImageStem(fold(model.stem, FULL)), "stem", ("images",), ["stem"])
    for name in STAGES:
        stage, sources = model.stages[name], STAGE_INPUTS[name]
        if isinstance(stage, TopDownStage) and stage.fine is not None:
            add(Alignment(stage), f"{name}.fine", sources, [f"{name}.aligned"])
            sources = (sources[0], f"{name}.aligned")
        for path in (ESSENTIAL, FULL):
            add(StageOnPath(stage, path), f"{name}.{path}", sources, [name])
    add(RawOutputs(model.head, height, width), "head", HEAD_INPUTS, ["boxes", "logits"])
    return models, gflops


def pipeline_of(segments: Iterable[str]) -> list[str]:
    """Execution order: segments that always run by their own name, stages by the name of the stage."""
    order: dict[str, None] = {}
    for segment in segments:
        order[segment.removesuffix(f".{ESSENTIAL}").removesuffix(f".{FULL}")] = None
    return list(order)


def manifest_of(
    name: str,
    recipe: Recipe,
    class_names: list[str],
    gflops: dict[str, float],
    provenance: dict[str, Any],
    accuracy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a YOLO bundle, without the sums that `write_bundle` adds."""
    height, width = recipe.image_size
    return {
        "name": name,
        "model": recipe.model,
        "family": "yolo",
        "input": {"name": "images", "height": height, "width": width, "resize": "letterbox", "pad_value": 114},
        "outputs": {"boxes": "boxes", "logits": "logits"},
        "class_names": class_names,
        "num_exits": 0,
        "pipeline": pipeline_of(gflops),
        "stages": {stage: {path: f"{stage}.{path}" for path in (ESSENTIAL, FULL)} for stage in STAGES},
        "exits": {},
        "segments": {segment: {"gflops": round(value, 6)} for segment, value in gflops.items()},
        "postprocess": {"nms": True, "iou_threshold": NMS_IOU_THRESHOLD},
        "accuracy": accuracy or {"dataset": "none", "metric": "AP (COCO 0.50:0.95), in [0,1]", "configurations": {}},
        "provenance": provenance,
    }


def load_weights(path: Path) -> tuple[AnyDepthYolo, Recipe, list[str], int]:
    """The detector of a `model.safetensors` that `training.train` wrote.

    Returns:
        The network, its recipe, its class names and the iterations it was trained.

    Raises:
        RecipeError: not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        recipe: Recipe = from_dict(Recipe, json.loads(metadata["recipe"]), str(path))
        class_names = json.loads(metadata["class_names"])
        model = recipe.build_model(len(class_names))
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise RecipeError(f"{path} is no weights file of training.train: {error}") from error
    return model.eval(), recipe, class_names, int(metadata["iteration"])


def single_stage_configs() -> list[DepthConfig]:
    """Base, full, and the super-net with each single stage on its essential path: what the estimates rest on."""
    full = DepthConfig.full()
    singles = [
        DepthConfig(tuple(other != stage for other in STAGES)) for stage in STAGES
    ]
    return [full, DepthConfig.base(), *singles]


def git_commit() -> str:
    """The commit that the working tree is at, or `unknown`."""
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.export models/aisle-yolo-t.safetensors models/aisle-yolo-t.anydepth`."""
    parser = argparse.ArgumentParser(prog="training.export", description=__doc__)
    parser.add_argument("weights", type=Path, help="model.safetensors of a run")
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
    options = parser.parse_args(arguments)
    try:
        model, recipe, class_names, iterations = load_weights(options.weights)
        if options.image_size:
            recipe = dataclasses.replace(recipe, image_size=tuple(options.image_size))
        models, gflops = export_segments(model, recipe.image_size)
        name = options.bundle.name.removesuffix(".anydepth")
        provenance = {
            "recipe": f"{recipe.model}, {iterations} iterations of {recipe.batch_size} aisle scenes",
            "dataset": "aisle scenes (synthetic)",
            "iterations": iterations,
            "seed": recipe.seed,
            "commit": git_commit(),
        }
        manifest = manifest_of(name, recipe, class_names, gflops, provenance)
        bundle = write_bundle(options.bundle, manifest, models)
        if options.measure:
            manifest["accuracy"] = measure_accuracy(bundle, options.measure)
        bundle = write_bundle(options.bundle, manifest, models, {"MODEL_CARD.md": model_card(manifest).encode()})
    except (RecipeError, BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in options.bundle.rglob("*") if file.is_file())
    print(f"wrote {options.bundle}: {len(models)} segments, {size / 1e6:.1f} MB")
    for config in (bundle.full, bundle.base):
        accuracy = f", AP {bundle.average_precision(config):.3f}" if bundle.has_accuracy else ""
        print(f"  {config}: {bundle.gflops(config):.3f} GFLOPs{accuracy}")
    return 0


def measure_accuracy(bundle: Bundle, count: int) -> dict[str, Any]:
    """The accuracy table of the manifest, measured on the first `count` images of the validation split."""
    metrics = evaluate_bundle(bundle, single_stage_configs(), "val", count, progress=sys.stderr.isatty())
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

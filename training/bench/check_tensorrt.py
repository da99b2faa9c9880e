"""Sends every segment and the composed graphs of detectors through TensorRT's parser and builder; no GPU is needed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from anydepth_perception.backends import BackendError
from anydepth_perception.backends.tensorrt_builder import PRECISIONS, BuildOptions, build_engine
from anydepth_perception.backends.tensorrt_library import import_tensorrt
from anydepth_perception.bundle import Bundle, BundleError, write_bundle
from anydepth_perception.tools.arguments import whole_number
from training.export.manifest import manifest_of
from training.export.segments import export_segments
from training.families import build_model, model_names
from training.recipes.recipe import Recipe

COMPUTE_CAPABILITY = "SM86"
"""Of the GPUs that TensorRT-RTX builds for, the one nearest to a Jetson Orin's SM87."""

NUM_RUNGS = 8
"""As many as the node compiles."""

RECORD = Path(__file__).parents[2] / "docs" / "engine_sizes.json"
"""Sizes of the shipped bundle's float16 engines, as last recorded."""

NUM_CLASSES = 80


@dataclass(frozen=True)
class Check:
    """What TensorRT made of one graph: an engine of `mebibytes`, or `error`.

    Attributes:
        bundle: name of the bundle.
        graph: name of a segment, or a depth configuration for its composed graph.
        precision: `float32` or `float16`, strongly typed.
        seconds: that conversion, parsing and building took.
        mebibytes: size of the serialised engine, 0 where the graph was refused.
        error: why the graph was refused, None where it was not.
    """

    bundle: str
    graph: str
    precision: str
    seconds: float
    mebibytes: float
    error: str | None


def check_bundle(
    bundle: Bundle,
    precisions: Sequence[str] = PRECISIONS,
    *,
    num_rungs: int = NUM_RUNGS,
    compute_capability: str | None = COMPUTE_CAPABILITY,
) -> Iterator[Check]:
    """Builds every segment, and the composed graphs of a ladder of `num_rungs` from base to full, in each precision.

    Raises:
        BackendError: TensorRT is not installed.
    """
    library = import_tensorrt()
    for graph, model in _graphs(bundle, num_rungs):
        for precision in precisions:
            options = BuildOptions(precision, compute_capability)
            started = time.perf_counter()
            try:
                size, error = len(build_engine(library, model, options)[0]), None
            except BackendError as refusal:
                size, error = 0, str(refusal)
            yield Check(bundle.name, graph, precision, time.perf_counter() - started, size / 2**20, error)


def _graphs(bundle: Bundle, num_rungs: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    for segment in bundle.manifest.segments.values():
        yield segment.name, bundle.read_segment(segment)
    for config in bundle.default_configs(num_rungs):
        yield str(config), bundle.compose(config)


def random_bundle(model_name: str, image_size: tuple[int, int], path: Path, seed: int = 0) -> Bundle:
    """Exports a detector with random weights for images of `image_size` (height, width) to the folder `path`.

    Raises:
        ValueError: the model's name is unknown, or the image's sides are not multiples of 32.
    """
    recipe = Recipe(model=model_name, image_size=image_size)
    torch.manual_seed(seed)
    model = build_model(model_name, NUM_CLASSES).eval()
    randomise(model)
    models, gflops = export_segments(model, image_size)
    class_names = [f"class {index}" for index in range(NUM_CLASSES)]
    manifest = manifest_of(f"random-{model_name}", model, recipe, class_names, gflops, {"seed": seed})
    return write_bundle(path, manifest, models)


def randomise(model: nn.Module) -> None:
    """Gives parameters and batch-norm statistics random values, so that no simplifier finds zeros, ones or twins."""
    statistics = (buffer for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    with torch.no_grad():
        for tensor in [*model.parameters(), *statistics]:
            tensor.uniform_(0.1, 1.0)


def _bundles(options: argparse.Namespace) -> Iterator[Bundle]:
    if options.bundle:
        yield Bundle.load(options.bundle)
    for name in options.model:
        with tempfile.TemporaryDirectory() as folder:
            yield random_bundle(name, tuple(options.image_size), Path(folder) / f"{name}.anydepth", options.seed)


def _report(checks: Iterable[Check]) -> list[Check]:
    """Prints a table row by row, and returns its rows."""
    print(f"{'bundle':18} {'graph':18} {'precision':10} {'seconds':>8} {'MiB':>8}")
    done = []
    for check in checks:
        size = "refused" if check.error else f"{check.mebibytes:.2f}"
        print(f"{check.bundle:18} {check.graph:18} {check.precision:10} {check.seconds:8.2f} {size:>8}", flush=True)
        done.append(check)
    return done


def _record(document: dict[str, Any], checks: Sequence[Check]) -> dict[str, Any]:
    """Sizes by graph, in float16."""
    sizes = {check.graph: round(check.mebibytes, 2) for check in checks if check.precision == "float16"}
    return {**document, "precision": "float16", "bundle": checks[0].bundle, "mebibytes": sizes}


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.bench.check_tensorrt --model detr-r50 --model yolo-l`."""
    parser = argparse.ArgumentParser(prog="training.bench.check_tensorrt", description=__doc__)
    parser.add_argument(
        "--model", action="append", default=[], choices=model_names(), metavar="NAME",
        help=f"check this model with random weights; may be given several times; one of {', '.join(model_names())}",
    )
    parser.add_argument("--bundle", type=Path, help="check this bundle")
    parser.add_argument(
        "--precision", type=lambda text: text.split(","), default=list(PRECISIONS), metavar="NAMES",
        help=f"comma-separated, of {', '.join(PRECISIONS)}; all by default",
    )
    parser.add_argument(
        "--image-size", type=int, nargs=2, default=[640, 640], metavar=("HEIGHT", "WIDTH"),
        help="of the models' inputs in pixels, 640 640 by default; a bundle has its own",
    )
    parser.add_argument(
        "--rungs", type=whole_number(2), default=NUM_RUNGS, metavar="COUNT",
        help=f"composed graphs from base to full, {NUM_RUNGS} by default",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights, 0 by default")
    parser.add_argument("--record", type=Path, metavar="PATH", help="write the engines' sizes in MiB to this JSON file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if not options.model and not options.bundle:
        parser.error("nothing to check: give --model NAME or --bundle PATH")
    unknown = [precision for precision in options.precision if precision not in PRECISIONS]
    if unknown:
        parser.error(f"unknown precision {unknown[0]!r}; accepted are {', '.join(PRECISIONS)}")
    if options.record and (options.model or not options.bundle or "float16" not in options.precision):
        parser.error("--record is for the float16 engines of one bundle: give --bundle PATH and no --model")
    try:
        version = import_tensorrt().version
        checks = (
            check
            for bundle in _bundles(options)
            for check in check_bundle(bundle, options.precision, num_rungs=options.rungs)
        )
        done = list(checks) if options.json else _report(checks)
    except (BackendError, BundleError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    refused = [check for check in done if check.error]
    document = {"tensorrt": version, "compute_capability": COMPUTE_CAPABILITY, "seed": options.seed}
    if options.record:
        options.record.write_text(json.dumps(_record(document, done), indent=1) + "\n")
    if options.json:
        print(json.dumps({**document, "checks": [dataclasses.asdict(check) for check in done]}, indent=1))
    else:
        print(f"TensorRT {version}, {COMPUTE_CAPABILITY}: {len(done) - len(refused)} of {len(done)} graphs accepted")
    for check in refused:
        print(f"refused: {check.bundle} {check.graph} in {check.precision}: {check.error}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())

"""Converts published checkpoints into our weights file, and AnyDepth-DETR into Hugging Face's layout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.convert.class_names import names_beside, read_class_names
from training.convert.layouts import OURS, layout_of, unwrapped
from training.convert.loading import Checkpoint, CheckpointError, load_checkpoint
from training.data.coco_names import COCO_NAMES
from training.families import FAMILIES, family_of, model_names
from training.models.conversion import Conversion
from training.models.detector import AnyDepthDetector
from training.recipes.recipe import Recipe
from training.recipes.weights import load_weights, save_weights

IMAGE_SIZE = (640, 640)
"""Height and width that the published checkpoints were trained at."""

NAMED = 8
"""Class names that are printed."""

FIELDS = """
fields of the JSON object:
  source, output  as given; model as given
  layout          whose checkpoint the keys say it is
  wrapping        where in the file its tensors are, as ema.module; empty for a plain state dict
  prefix          what every key of the network began with, as module._orig_mod.; empty for none
  class_names     of the network written
  matched         [source key, written key] of every tensor taken; a source key may fill several
  missing         keys of the network written that the source lacks: they keep their initial value
  unexpected      keys of the source without a place in the network written
"""


def convert(checkpoint: Checkpoint, model: AnyDepthDetector) -> Conversion:
    """Converts a checkpoint of any published layout for `model`, which is not changed.

    Raises:
        ValueError: a layout of another family, or what its conversion refuses.
    """
    name = layout_of(checkpoint)
    if name == OURS:
        raise CheckpointError(f"{checkpoint.file} is of {OURS} already; --to huggingface is what it converts to")
    for layout in family_of(model.name).layouts:
        if layout.name == name:
            return layout.convert(checkpoint.tensors, model)
    owners = [family for family in FAMILIES if name in [layout.name for layout in family.layouts]]
    accepted = ", ".join(model_name for family in owners for model_name in family.model_names)
    raise CheckpointError(
        f"{checkpoint.file} is a checkpoint of {name}, which is no {model.name}; it can become one of {accepted}"
    )


def to_ours(source: Path, output: Path, recipe: Recipe, given_names: Sequence[str] | None = None) -> dict[str, Any]:
    """Converts a published checkpoint into a weights file for the network of `recipe`; returns the report.

    Class names that are not given are those of the `config.json` beside it, or else COCO's.

    Raises:
        ValueError, OSError: what cannot be read, converted or written.
    """
    checkpoint = unwrapped(load_checkpoint(source))
    layout = layout_of(checkpoint)
    found = names_beside(source) if given_names is None else None
    class_names = given_names or found or COCO_NAMES
    torch.manual_seed(recipe.seed)
    model = recipe.build_model(len(class_names))
    try:
        conversion = convert(checkpoint, model)
    except ValueError as error:
        if given_names is None and "classes" in str(error):
            origin = "COCO's" if found is None else "those of its config.json"
            raise CheckpointError(f"{error}; its class names were taken for {origin}: give --class-names") from error
        raise
    model.load_state_dict(conversion.state)
    provenance = {
        "recipe": f"{recipe.model}, converted from a checkpoint of {layout}",
        "source": checkpoint.file.name,
        "source_sha256": checkpoint.sha256(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(model, output, recipe, class_names, 0, provenance)
    return _report(conversion, layout, checkpoint, class_names)


def to_huggingface(source: Path, output: Path, model_name: str) -> dict[str, Any]:
    """Converts a weights file of an AnyDepth-DETR to Hugging Face's layout; returns the report.

    An `output` ending in .safetensors is that file; any other is a folder with the file and its `config.json`, as
    `RTDetrForObjectDetection.from_pretrained` reads it.

    Raises:
        ValueError, OSError: what cannot be read, converted or written.
    """
    checkpoint = unwrapped(load_checkpoint(source))
    layout = layout_of(checkpoint)
    if layout != OURS:
        raise CheckpointError(f"{source} is a checkpoint of {layout}; --to huggingface takes weights of {OURS}")
    weights = load_weights(source)
    if weights.model.name != model_name:
        raise CheckpointError(f"{source} is a {weights.model.name}; --model says {model_name}")
    family = family_of(model_name)
    if family.huggingface is None:
        raise CheckpointError(f"{source} is a {weights.model.name}; only AnyDepth-DETR has a place at Hugging Face")
    conversion = family.huggingface.convert(weights.model)
    file = output
    if output.suffix != ".safetensors":
        file = output / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file != output:
        config = family.huggingface.config(model_name.removeprefix(f"{family.name}-"), weights.class_names)
        (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(conversion.state, file, {"format": "pt"})
    file.chmod(0o644)  # safetensors leaves the mode of a temporary file
    return _report(conversion, layout, checkpoint, weights.class_names)


def _report(
    conversion: Conversion, layout: str, checkpoint: Checkpoint, class_names: Sequence[str]
) -> dict[str, Any]:
    return {
        "layout": layout,
        "wrapping": checkpoint.wrapping,
        "prefix": checkpoint.prefix,
        "class_names": list(class_names),
        "matched": conversion.matched,
        "missing": conversion.missing,
        "unexpected": conversion.unexpected,
    }


def _print_report(report: dict[str, Any], *, verbose: bool) -> None:
    place = f", in {report['wrapping']}" if report["wrapping"] else ""
    prefix = f", without the prefix {report['prefix']}" if report["prefix"] else ""
    print(f"{report['source']}: a checkpoint of {report['layout']}{place}{prefix}")
    names = report["class_names"]
    print(f"{len(names)} classes: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}")
    print(f"matched {len(report['matched'])} tensors of {report['model']}")
    if verbose:
        for source, written in report["matched"]:
            print(f"  {source} -> {written}")
    for kind, meaning in (("missing", "kept as initialised"), ("unexpected", "without a place")):
        print(f"{kind} {len(report[kind])} ({meaning})" if report[kind] else f"{kind} 0")
        for key in report[kind]:
            print(f"  {key}")
    print(f"wrote {report['output']}")


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.convert rtdetr_r50vd.pth detr-r50.safetensors --model detr-r50`."""
    parser = argparse.ArgumentParser(
        prog="training.convert", description=__doc__, epilog=FIELDS, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, help="checkpoint: a file, or a folder as transformers saves one")
    parser.add_argument("output", type=Path, help="weights file; for huggingface a folder or a .safetensors file")
    parser.add_argument("--model", required=True, choices=model_names(), metavar="NAME", help=", ".join(model_names()))
    parser.add_argument("--to", choices=("ours", "huggingface"), default="ours", help="layout to write (default: ours)")
    parser.add_argument(
        "--class-names",
        metavar="NAMES",
        help="coco, a file with a name on each line, or a,b,c (default: id2label of config.json beside the source,\n"
        "or coco; to huggingface those of the source)",
    )
    parser.add_argument(
        "--fine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="FINE in the neck, which starts as the identity (default: with)",
    )
    parser.add_argument("--static", action="store_true", help="the plain baseline, without any depth")
    parser.add_argument("--verbose", action="store_true", help="list the matched keys as well")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.to == "huggingface":
            if options.class_names is not None:
                raise ValueError("--class-names: the names are in the weights file that --to huggingface reads")
            report = to_huggingface(options.source, options.output, options.model)
        else:
            recipe = Recipe(
                model=options.model,
                fine=options.fine,
                any_depth=not options.static,
                image_size=IMAGE_SIZE,
                resize=family_of(options.model).outputs.resize,
            )
            given = None if options.class_names is None else read_class_names(options.class_names)
            report = to_ours(options.source, options.output, recipe, given)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {"source": str(options.source), "output": str(options.output), "model": options.model, **report}
    if options.json:
        print(json.dumps(report))
    else:
        _print_report(report, verbose=options.verbose)
    return 0


if __name__ == "__main__":
    sys.exit(main())

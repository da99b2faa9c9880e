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

from training.convert.loading import Checkpoint, CheckpointError, load_checkpoint
from training.data.coco_names import COCO_NAMES
from training.families import FAMILIES, family_of, model_names
from training.models.conversion import Conversion
from training.models.detector import AnyDepthDetector
from training.recipes.recipe import Recipe
from training.recipes.weights import load_weights, save_weights

IMAGE_SIZE = (640, 640)
"""Height and width that the published checkpoints were trained at."""

OURS = "this project"
OUR_MARK = "stages.p2."
"""The beginning of a key that our weights files have and no published checkpoint has."""

FIELDS = """
fields of the JSON object:
  source, output  as given; model as given
  layout          whose checkpoint the keys say it is
  wrapping        where in the file its tensors are, as ema.module; empty for a plain state dict
  matched         [source key, written key] of every tensor taken; a source key may fill several
  missing         keys of the network written that the source lacks: they keep their initial value
  unexpected      keys of the source without a place in the network written
"""


def layout_of(checkpoint: Checkpoint) -> str:
    """Whose checkpoint it is, by its keys.

    Raises:
        CheckpointError: nobody's that is known here.
    """
    marks = {OUR_MARK: OURS}
    marks |= {mark: layout.name for family in FAMILIES for layout in family.layouts for mark in layout.marks}
    for mark, layout in marks.items():
        if any(key.startswith(mark) for key in checkpoint.tensors):
            return layout
    raise CheckpointError(
        f"{checkpoint.file} is of no layout known here ({', '.join(sorted(set(marks.values())))}); "
        f"its first of {len(checkpoint.tensors)} keys are {list(checkpoint.tensors)[:3]}"
    )


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


def read_class_names(text: str) -> tuple[str, ...]:
    """Class names in the order of their ids: `coco`, a file with one on each line, or names with commas between.

    Raises:
        ValueError: an empty name, or one given twice.
    """
    if text == "coco":
        return COCO_NAMES
    path = Path(text)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    names = tuple(line.strip() for line in lines)
    for index, name in enumerate(names):
        if not name:
            raise ValueError(f"class names {text!r}: name {index + 1} of {len(names)} is empty")
        if name in names[:index]:
            raise ValueError(f"class names {text!r}: {name!r} stands there twice")
    return names


def to_ours(source: Path, output: Path, recipe: Recipe, class_names: Sequence[str]) -> dict[str, Any]:
    """Converts a published checkpoint into a weights file for the network of `recipe`; returns the report.

    Raises:
        ValueError, OSError: what cannot be read, converted or written.
    """
    checkpoint = load_checkpoint(source)
    layout = layout_of(checkpoint)
    torch.manual_seed(recipe.seed)
    model = recipe.build_model(len(class_names))
    conversion = convert(checkpoint, model)
    model.load_state_dict(conversion.state)
    provenance = {
        "recipe": f"{recipe.model}, converted from a checkpoint of {layout}",
        "source": checkpoint.file.name,
        "source_sha256": checkpoint.sha256(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(model, output, recipe, class_names, 0, provenance)
    return _report(conversion, layout, checkpoint.wrapping)


def to_huggingface(source: Path, output: Path, model_name: str) -> dict[str, Any]:
    """Converts a weights file of an AnyDepth-DETR to Hugging Face's layout; returns the report.

    An `output` ending in .safetensors is that file; any other is a folder with the file and its `config.json`, as
    `RTDetrForObjectDetection.from_pretrained` reads it.

    Raises:
        ValueError, OSError: what cannot be read, converted or written.
    """
    checkpoint = load_checkpoint(source)
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
    return _report(conversion, layout, checkpoint.wrapping)


def _report(conversion: Conversion, layout: str, wrapping: str) -> dict[str, Any]:
    return {
        "layout": layout,
        "wrapping": wrapping,
        "matched": conversion.matched,
        "missing": conversion.missing,
        "unexpected": conversion.unexpected,
    }


def _print_report(report: dict[str, Any], *, verbose: bool) -> None:
    place = f", in {report['wrapping']}" if report["wrapping"] else ""
    print(f"{report['source']}: a checkpoint of {report['layout']}{place}")
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
        help="coco, a file with a name on each line, or a,b,c (default: coco; to huggingface those of the source)",
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
            report = to_ours(options.source, options.output, recipe, read_class_names(options.class_names or "coco"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    given = {"source": str(options.source), "output": str(options.output), "model": options.model}
    if options.json:
        print(json.dumps({**given, **report}))
    else:
        _print_report({**given, **report}, verbose=options.verbose)
    return 0


if __name__ == "__main__":
    sys.exit(main())

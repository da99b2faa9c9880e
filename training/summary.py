"""Prints a detector's parameters and GFLOPs, per stage and per path, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from anydepth_perception.depth.space import ESSENTIAL, FULL, DepthConfig
from training.evaluation.flops import count_parts, flops_at, meta_model
from training.families import family_of, model_names
from training.models.counts import Flops, Part
from training.models.detector import AnyDepthDetector
from training.models.fine import FineSettings
from training.models.stage import AnyDepthSettings

NOTHING = Flops()

FIELDS = """
fields of the JSON object:
  model, num_classes, image_size [height, width], fine, any_depth
  depth             the configuration that the totals are of (the super-net with --depth all)
  convention        what `gflops` counts; one for DETR, one for YOLO, each that of the published tables
  params            all parameters of the network, the frozen ones included
  params_any_depth  those of them that any depth adds: essential batch norms and aggregators
  gflops            by the convention, of one image
  attention_gflops  attention products alone: part of `gflops` for DETR, not for YOLO
  gflops_executed   what this code runs: attention included, DETR's box head on the selected cells only
  super_net, base_net   depth, gflops and gflops_executed of the two ends
  stages            in execution order: name, params, params_refinement (blocks that only the full path runs),
                    params_any_depth, num_blocks N, num_essential k, and gflops, attention_gflops and
                    gflops_executed, each {"full": ..., "essential": ...} (essential is null where there is one path)
  configurations    with --depth all: depth, gflops, gflops_executed of each, the cheapest first
"""


def summarise(model: AnyDepthDetector, image_size: tuple[int, int], depth: str = "full") -> dict[str, Any]:
    """The JSON object that `--help` describes.

    Args:
        model: on the meta device, as `training.evaluation.flops.meta_model` builds it.
        image_size: (height, width) in pixels.
        depth: a depth configuration, `full`, `base`, or `all` for the totals of every one.

    Raises:
        DepthConfigError: a configuration that cannot be read or that the model does not have.
        ValueError: an image below 32 pixels a side.
    """
    config = model.parse_config("full" if depth == "all" else depth)
    parts = count_parts(model, image_size)
    counting = family_of(model.name).counting

    def tables_flops(flops: Flops) -> int:
        return flops.total if counting.attention else flops.layers

    def totals(at: DepthConfig) -> dict[str, Any]:
        return {
            "depth": str(at),
            "gflops": _giga(tables_flops(flops_at(parts, model.space, at, published=True))),
            "gflops_executed": _giga(flops_at(parts, model.space, at).total),
        }

    def per_path(part: Part, kind: Callable[[Flops], int], extra: Flops = NOTHING) -> dict[str, float | None]:
        by_path = {path: part.on(path) for path in (FULL, ESSENTIAL)}
        return {path: None if flops is None else _giga(kind(flops + extra)) for path, flops in by_path.items()}

    summary: dict[str, Any] = {
        "model": model.name,
        "num_classes": model.num_classes,
        "image_size": list(image_size),
        "fine": any(getattr(stage, "fine", None) is not None for stage in model.stages.values()),
        "any_depth": model.any_depth.enabled,
        **totals(config),
        "convention": counting.convention,
        "attention_gflops": _giga(flops_at(parts, model.space, config).attention),
        "params": sum(part.params for part in parts),
        "params_any_depth": sum(part.any_depth_params for part in parts),
        "super_net": totals(model.space.full),
        "base_net": totals(model.space.base),
        "stages": [
            {
                "name": part.name,
                "params": part.params,
                "params_refinement": part.refinement_params,
                "params_any_depth": part.any_depth_params,
                "num_blocks": part.num_blocks,
                "num_essential": part.num_essential,
                "gflops": per_path(part, tables_flops, part.published_extra),
                "attention_gflops": per_path(part, lambda flops: flops.attention),
                "gflops_executed": per_path(part, lambda flops: flops.total),
            }
            for part in parts
        ],
    }
    if depth == "all":
        summary["configurations"] = sorted(
            (totals(each) for each in model.space.all()), key=lambda each: (each["gflops"], each["depth"])
        )
    return summary


def _giga(flops: int) -> float:
    return round(flops / 1e9, 6)


def table(summary: dict[str, Any]) -> str:
    """A summary for reading."""
    height, width = summary["image_size"]
    kind = "any depth" if summary["any_depth"] else "static"
    fine = "with" if summary["fine"] else "without"
    lines = [
        f"{summary['model']} ({kind}, {fine} FINE), {summary['num_classes']} classes, {height}x{width} pixels",
        f"GFLOPs: {summary['convention']}",
        "",
        *_row("stage", "blocks", "params", "refinement", "any depth", "GFLOPs full", "essential", "attention"),
        "|---|" + "---:|" * 7,
    ]
    for stage in summary["stages"]:
        blocks = "" if stage["num_blocks"] is None else f"{stage['num_essential']} of {stage['num_blocks']}"
        lines += _row(
            stage["name"],
            blocks,
            f"{stage['params']:,}",
            f"{stage['params_refinement']:,}",
            f"{stage['params_any_depth']:,}",
            *(_number(figure) for figure in stage["gflops"].values()),
            _number(stage["attention_gflops"][FULL]),
        )
    lines += [
        "",
        f"parameters: {summary['params']:,}, {summary['params_any_depth']:,} of them added by any depth",
        f"at {summary['depth']}: {summary['gflops']:.2f} GFLOPs; attention products {summary['attention_gflops']:.2f}; "
        f"executed by this code {summary['gflops_executed']:.2f}",
    ]
    full, base = summary["super_net"], summary["base_net"]
    if base["depth"] != full["depth"]:
        saved = full["gflops"] - base["gflops"]
        lines.append(
            f"super-net {full['depth']} {full['gflops']:.2f}, base-net {base['depth']} {base['gflops']:.2f}: "
            f"{saved:.2f} GFLOPs saved"
        )
    if "configurations" in summary:
        lines += ["", *_row("depth", "GFLOPs", "executed"), "|---|---:|---:|"]
        for each in summary["configurations"]:
            lines += _row(each["depth"], _number(each["gflops"]), _number(each["gflops_executed"]))
    return "\n".join(lines)


def _row(*cells: str) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


def _number(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"


def _pixels(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `python -m training.summary --model detr-r50 --depth base --json`."""
    parser = argparse.ArgumentParser(
        prog="training.summary",
        description=__doc__,
        epilog=FIELDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help=f"one of {', '.join(model_names())}")
    parser.add_argument(
        "--fine", action=argparse.BooleanOptionalAction, default=True, help="FINE in the neck (default: with)"
    )
    parser.add_argument("--static", action="store_true", help="the plain baseline, without any depth")
    parser.add_argument("--classes", type=int, default=80, help="classes of the head (default: 80)")
    parser.add_argument(
        "--image-size", type=_pixels, nargs=2, default=(640, 640), metavar=("H", "W"), help="default: 640 640"
    )
    parser.add_argument(
        "--depth", default="full", metavar="CONFIG", help="full, base, all, or a text like FFEE.FFEE.d4 (default: full)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on the last line")
    options = parser.parse_args(arguments)
    try:
        fine = FineSettings() if options.fine else None
        any_depth = AnyDepthSettings(enabled=not options.static)
        model = meta_model(options.model, options.classes, fine=fine, any_depth=any_depth)
        summary = summarise(model, tuple(options.image_size), options.depth)
    except ValueError as error:  # an unknown model or depth, no classes, or too small an image
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(summary))
    if options.json:
        print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())

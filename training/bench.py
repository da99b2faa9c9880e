"""The benchmark: staged, whole and monolithic, every backend and rung, memory, INT8, and Hugging Face's RT-DETR."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from anydepth_perception.backends import BACKENDS, Backend, BackendError, create_backend
from anydepth_perception.backends.cpu import cpu_model
from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.tools.environment import bench_seconds
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import DEFAULT_MODEL
from training import bench_parts
from training.bench_plan import Part, run_parts
from training.bench_report import REFERENCE, draw, headline, markdown
from training.export import git_commit

DEFAULT_SECONDS = 450.0
OUTPUT = Path("bench_output")

_AROUND_S = 12.0
"""Starting Python with PyTorch, finding the backends, drawing the plot."""


def parts_of(tested: bench_parts.BundleUnderTest) -> list[Part]:
    """All parts, the ones that count most first; what they take is that of two cores of 2.5 GHz or so."""
    return [
        Part("rungs", "rungs: whole, staged and monolithic on every backend", 25, 90,
             functools.partial(bench_parts.measure_rungs, tested)),
        Part("host", "host work of a frame", 2, 12, functools.partial(bench_parts.measure_host, tested)),
        Part("switches", "changes of depth", 3, 60, functools.partial(bench_parts.measure_switches, tested)),
        Part("peer", "Hugging Face's RT-DETR", 35, 40, functools.partial(bench_parts.measure_peer, tested)),
        Part("int8", "INT8 over float32", 25, 25, functools.partial(bench_parts.measure_int8, tested)),
        Part("memory", "memory of fresh processes", 30, 0, functools.partial(bench_parts.measure_memory, tested)),
        Part("yolo-l", "YOLO-L at 640x640", 15, 15,
             functools.partial(bench_parts.measure_random, tested, name="yolo-l")),
        Part("detr-r50", "DETR-R50 at 640x640", 35, 20,
             functools.partial(bench_parts.measure_random, tested, name="detr-r50")),
    ]


def find_backends() -> tuple[dict[str, Backend], dict[str, str]]:
    """Every backend that is usable here, the default one first, and why the others are not."""
    found, missing = {}, {}
    for name in (REFERENCE, *(name for name in BACKENDS if name not in ("auto", REFERENCE))):
        try:
            found[name] = create_backend(name)
        except BackendError as error:
            missing[name] = str(error)
    return found, missing


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.bench`; JSON on the last line, a report and a plot in `bench_output/`."""
    parser = argparse.ArgumentParser(
        prog="training.bench",
        description=f"{__doc__} BENCH_SECONDS bounds its time (default: {DEFAULT_SECONDS:.0f}).",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundle, by name or by path (default: %(default)s)")
    parser.add_argument(
        "--weights", type=Path, help="the weights file it was exported from (default: the one beside it)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the report (default: %(default)s)")
    parser.add_argument("--parts", help="only these, separated by commas (default: all)")
    options = parser.parse_args(arguments)
    with interruptible():
        try:
            seconds = bench_seconds(os.environ.get("BENCH_SECONDS", ""), DEFAULT_SECONDS)
            return _run(options, seconds)
        except (BundleError, BackendError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1


def _run(options: argparse.Namespace, seconds: float) -> int:
    started = time.perf_counter()
    bundle = Bundle.load(find_bundle(options.model))
    weights = options.weights or bundle.path.with_suffix(".safetensors")
    if options.weights and not weights.is_file():
        raise ValueError(f"{weights}: no such file")
    backends, missing = find_backends()
    with tempfile.TemporaryDirectory(prefix="anydepth-bench-") as scratch:
        tested = bench_parts.BundleUnderTest(bundle, weights if weights.is_file() else None, backends, Path(scratch))
        parts = parts_of(tested)
        outcome = run_parts(_chosen(parts, options.parts), seconds - _AROUND_S)
    for part in parts:
        if part.name not in outcome.figures:
            outcome.figures[part.name], outcome.left_out[part.name] = None, "not asked for by --parts"
    result = {
        **headline(outcome.figures),
        "bundle": bundle.name,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine(backends),
        "parts": outcome.figures,
        "left_out": {**outcome.left_out, **{f"backend {name}": reason for name, reason in missing.items()}},
    }
    _write(result, options.output)
    print(json.dumps(result))
    return 1 if outcome.failed else 0


def _chosen(parts: list[Part], names: str | None) -> list[Part]:
    if names is None:
        return parts
    known = [part.name for part in parts]
    for name in names.split(","):
        if name not in known:
            raise ValueError(f"--parts names {name!r}, accepted are {', '.join(known)}")
    return [part for part in parts if part.name in names.split(",")]


def machine(backends: dict[str, Backend]) -> dict[str, Any]:
    """What the figures depend on beside the bundle."""
    return {
        "cpu": cpu_model(),
        "threads": backends[REFERENCE].threads,
        "backends": {
            name: {"version": backend.version, "precision": backend.precision} for name, backend in backends.items()
        },
        "commit": git_commit(),
    }


def _write(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = markdown(result)
    (folder / "report.md").write_text(report, encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result["parts"]["rungs"]:
        draw(result["parts"]["rungs"], f"{result['bundle']} on {result['machine']['cpu']}", folder / "plot.png")
    print(report)
    print(f"written to {folder}/: report.md, plot.png, result.json", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""Command-line options that choose a detector, shared by the tools that measure one."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from anydepth_perception.backends import BACKENDS, DEFAULT_WORKSPACE_MIB, PRECISIONS, create_backend
from anydepth_perception.backends.engine_cache import TIMING_CACHE_FILE, EngineCache
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.detection.detector import Detector
from anydepth_perception.execution import EXECUTIONS, STAGED, WHOLE, DecisionPointError

DEFAULT_MODEL = "aisle-yolo-t"


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a bundle, a backend, an execution and a number of rungs."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundle, by name or by path (default: %(default)s)")
    parser.add_argument("--backend", default="auto", choices=BACKENDS, help="inference backend (default: %(default)s)")
    parser.add_argument(
        "--threads", type=whole_number(0), default=0, help="CPU threads per engine, 0 for all physical cores"
    )
    parser.add_argument(
        "--precision", default="auto", choices=PRECISIONS, help="arithmetic of the engines (default: %(default)s)"
    )
    parser.add_argument(
        "--workspace-mib",
        type=whole_number(1),
        default=DEFAULT_WORKSPACE_MIB,
        help="most memory that TensorRT may use as workspace of an engine (default: %(default)s)",
    )
    parser.add_argument(
        "--execution",
        default=WHOLE,
        choices=EXECUTIONS,
        help="one engine per configuration, or engines between decision points (default: %(default)s)",
    )
    parser.add_argument(
        "--decision-points",
        nargs="+",
        metavar="ENTRY",
        help=f"for {STAGED}: pipeline entries before which to decide; the default ones otherwise",
    )
    parser.add_argument(
        "--rungs", type=whole_number(2), default=8, help="configurations of the ladder (default: %(default)s)"
    )


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `build_detector` reads, and `--image-size`."""
    add_engine_options(parser)
    parser.add_argument(
        "--image-size",
        type=_size,
        default=(640, 480),
        metavar="WIDTHxHEIGHT",
        help="size of the source images (default: 640x480)",
    )


def build_detector(options: argparse.Namespace, cache: EngineCache | None = None) -> Detector:
    """The detector that the options ask for, with the engines of the default configurations, warmed up.

    Args:
        options: as `add_detector_options` has them.
        cache: where engines are looked for and kept; None builds all.

    Raises:
        BundleError: the bundle is not found or not valid.
        BackendError: the backend is not available, refuses a graph, or an engine is wrong.
        DecisionPointError: a decision point does not exist, two are too far apart, or whole execution is to have some.
    """
    if options.decision_points and options.execution == WHOLE:
        raise DecisionPointError(f"--decision-points is for {STAGED}: {WHOLE} execution decides once per frame")
    bundle = Bundle.load(find_bundle(options.model))
    backend = create_backend(
        options.backend,
        threads=options.threads,
        precision=options.precision,
        workspace_mib=options.workspace_mib,
        timing_cache=None if cache is None else cache.folder / TIMING_CACHE_FILE,
    )
    detector = Detector(
        bundle,
        backend,
        configs=bundle.default_configs(options.rungs),
        execution=options.execution,
        decision_points=options.decision_points,
        cache=cache,
    )
    detector.warm_up()
    return detector


def whole_number(minimum: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers of at least `minimum`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum}")
        return int(text)

    return parse


def fail(error: Exception) -> NoReturn:
    """Ends the tool with the reason in one line."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None or not all(1 <= int(side) <= 32767 for side in match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 640x480, of at most 32767 pixels a side")
    return int(match[1]), int(match[2])

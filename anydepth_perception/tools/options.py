"""Command-line options that choose a detector: one function for each that several tools have, and what they set."""

from __future__ import annotations

import argparse
from pathlib import Path

from anydepth_perception.backends import BACKENDS, DEFAULT_WORKSPACE_MIB, PRECISIONS, create_backend
from anydepth_perception.backends.engine_cache import TIMING_CACHE_FILE, EngineCache, default_folder
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.depth.space import DecisionPointError
from anydepth_perception.detection.detector import Detector
from anydepth_perception.execution import EXECUTIONS, STAGED, WHOLE
from anydepth_perception.tools.arguments import image_size, whole_number

DEFAULT_MODEL = "aisle-yolo-t"


class EngineOptions(argparse.Namespace):
    """What `add_engine_options` sets."""

    model: str
    backend: str
    threads: int
    precision: str
    workspace_mib: int
    execution: str
    decision_points: list[str] | None
    rungs: int


class DetectorOptions(EngineOptions):
    """What `add_detector_options` sets; `image_size` is (width, height) in pixels."""

    image_size: tuple[int, int]


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a bundle, a backend, an execution and a number of rungs."""
    add_model(parser)
    add_backend(parser)
    add_threads(parser)
    parser.add_argument(
        "--precision", default="auto", choices=PRECISIONS, help="arithmetic of the engines (default: %(default)s)"
    )
    parser.add_argument(
        "--workspace-mib",
        type=whole_number(1),
        default=DEFAULT_WORKSPACE_MIB,
        help="most memory that TensorRT may use as workspace of an engine (default: %(default)s)",
    )
    add_execution(parser)
    parser.add_argument(
        "--decision-points",
        nargs="+",
        metavar="ENTRY",
        help=f"for {STAGED}: entries of the network before which to decide; the default ones otherwise",
    )
    add_rungs(parser)


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `build_detector` reads, and `--image-size`."""
    add_engine_options(parser)
    add_image_size(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundle, by name or by path (default: %(default)s)")


def add_backend(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Adds `--backend`."""
    parser.add_argument("--backend", default=default, choices=BACKENDS, help="inference backend (default: %(default)s)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Adds `--threads`."""
    parser.add_argument(
        "--threads", type=whole_number(0), default=0, help="CPU threads per engine, 0 for all physical cores"
    )


def add_execution(parser: argparse.ArgumentParser) -> None:
    """Adds `--execution`."""
    parser.add_argument(
        "--execution",
        default=WHOLE,
        choices=EXECUTIONS,
        help="one engine per configuration, or engines between decision points (default: %(default)s)",
    )


def add_rungs(parser: argparse.ArgumentParser, fewest: int = 2) -> None:
    """Adds `--rungs`."""
    parser.add_argument(
        "--rungs", type=whole_number(fewest), default=8, help="configurations of the ladder (default: %(default)s)"
    )


def add_image_size(parser: argparse.ArgumentParser) -> None:
    """Adds `--image-size`."""
    parser.add_argument(
        "--image-size",
        type=image_size,
        default=(640, 480),
        metavar="WIDTHxHEIGHT",
        help="size of the source images (default: 640x480)",
    )


def add_cache_dir(parser: argparse.ArgumentParser) -> None:
    """Adds `--cache-dir`."""
    parser.add_argument(
        "--cache-dir",
        type=lambda text: Path(text).expanduser(),
        default=default_folder(),
        help="folder of engines, as the node's parameter cache_dir (default: %(default)s)",
    )


def build_detector(options: EngineOptions, cache: EngineCache | None = None) -> Detector:
    """The detector that the options ask for, with the engines of the default configurations, warmed up.

    Args:
        options: as `add_engine_options` has them.
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

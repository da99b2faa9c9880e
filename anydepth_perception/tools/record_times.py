"""Records what every entry of a bundle takes, frame after frame, for `anydepth_perception.depth.simulation --trace`.

Full and base take turns, so that both paths of every stage are seen under the same load. Run it beside what your robot
does, or with `--load`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anydepth_perception.aisle import AisleScene
from anydepth_perception.backends import BackendError, create_backend
from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.detection.detector import Detector
from anydepth_perception.execution import STAGED
from anydepth_perception.profile.recorded_times import RecordedTimes
from anydepth_perception.profile.steps import StepTimer
from anydepth_perception.tools.arguments import fail, number, whole_number
from anydepth_perception.tools.demo.random_load import RandomLoad
from anydepth_perception.tools.options import add_backend, add_image_size, add_model, add_threads

_IMAGES = 8
_ROUNDS = 10


class RecordOptions(argparse.Namespace):
    """What the command line says; `image_size` is (width, height) in pixels."""

    output: Path
    model: str
    backend: str
    threads: int
    image_size: tuple[int, int]
    frames: int
    rate: float
    load: int | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: `python -m anydepth_perception.tools.record_times times.npz`."""
    parser = argparse.ArgumentParser(
        prog="record_times", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="FILE.npz", help="where the times go")
    add_model(parser)
    add_backend(parser)
    add_threads(parser)
    add_image_size(parser)
    parser.add_argument("--frames", type=whole_number(4), default=3000, help="how many (default: %(default)s)")
    parser.add_argument("--rate", type=number(0.1, 1000.0), default=15.0, help="images a second (default: %(default)s)")
    parser.add_argument("--load", type=whole_number(0), metavar="SEED", help="add busy processes that come and go")
    options = parser.parse_args(arguments, RecordOptions())
    try:
        times = record(options)
        times.save(options.output)
    except (BundleError, BackendError, OSError) as error:
        fail(error)
    full = times.arrays()["frame_ms"][::2]
    p50, p90, p99 = np.percentile(full, (50, 90, 99))
    print(f"{options.output}: {len(full)} frames at full depth, p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f} ms")


def record(options: RecordOptions) -> RecordedTimes:
    """Times of `options.frames` frames.

    Raises:
        BundleError, BackendError: see `Detector`.
    """
    bundle = Bundle.load(find_bundle(options.model))
    backend = create_backend(options.backend, threads=options.threads)
    space = bundle.space
    scene = AisleScene(0, *options.image_size)
    images = [scene.render(float(index)).image for index in range(_IMAGES)]
    timer = StepTimer(bundle, backend)
    rounds = [timer.run(images[0]) for _ in range(_ROUNDS)]
    detector = Detector(
        bundle, backend, configs=(bundle.full, bundle.base), execution=STAGED, decision_points=space.names[1:]
    )
    detector.warm_up()
    step_ms = {step: statistics.median(each[step] for each in rounds) for step in space.steps}
    times = RecordedTimes(bundle, detector.groups, step_ms)
    with RandomLoad(options.load) if options.load is not None else contextlib.nullcontext():
        due = time.perf_counter()
        for index in range(options.frames):
            started = time.perf_counter()
            result = detector.detect(images[index % _IMAGES], (bundle.full, bundle.base)[index % 2])
            times.add(result, (time.perf_counter() - started) * 1e3)
            if sys.stderr.isatty() and not index % 100:
                print(f"\r{index} of {options.frames} frames", end="", file=sys.stderr, flush=True)
            due = max(due + 1.0 / options.rate, time.perf_counter() - 1.0 / options.rate)
            time.sleep(max(0.0, due - time.perf_counter()))
    return times


if __name__ == "__main__":
    main()

"""Measures the depth control: made-up loads, recorded times, the node over DDS under a load; the last line is JSON."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.bundle.locate import shared_folders
from anydepth_perception.depth.completions import build_tables
from anydepth_perception.depth.simulation.loads import network
from anydepth_perception.depth.simulation.report import POLICIES, cost, replay, simulate, summary
from anydepth_perception.depth.simulation.trace import TraceError, measured_percentiles, read_trace
from anydepth_perception.tools.arguments import fail, number
from anydepth_perception.tools.environment import use_own_ros_domain

DEFAULT_SECONDS = 300.0
SEEDS = (2001, 2002, 2003)
"""Of the made-up loads; no constant was chosen on them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; `--seconds 0` leaves the node out, which needs ROS."""
    parser = argparse.ArgumentParser(prog="bench deadline", description=__doc__)
    parser.add_argument(
        "--seconds", type=number(0.0, 3600.0), default=os.environ.get("BENCH_SECONDS") or str(DEFAULT_SECONDS),
        help="of the node under load, in windows of auto, full and base; 0 leaves it out (default: %(default)s)",
    )
    parser.add_argument("--frames", type=int, default=2500, help="of each made-up load (default: %(default)s)")
    parser.add_argument("--trace", type=Path, action="append", help="recorded times; may be repeated")
    parser.add_argument("--model", default="aisle-yolo-t", help="bundle of the node (default: %(default)s)")
    parser.add_argument("--execution", choices=("staged", "whole"), default="staged", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="of the node's load (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        report = measure(options)
    except (TraceError, BundleError, OSError, RuntimeError, ImportError) as error:
        fail(error)
    print(json.dumps(report))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    made_up = simulate(SEEDS, options.frames)
    report: dict[str, Any] = {
        "synthetic": {**summary(made_up), "seeds": list(SEEDS), "frames": options.frames},
        "baselines": {name: summary(made_up, name) for name in POLICIES[1:]},
        **cost(made_up),
        "tables_s": round(_tables_s(), 3),
        "replay": {},
    }
    for path in options.trace or [shipped_trace()]:
        deadlines = measured_percentiles(read_trace(path))
        runs = replay(path, list(deadlines.values()), ("auto", "auto_once", "plan_once", "full", "base"))
        report["replay"][path.stem] = {
            f"p{percentile}": {
                "deadline_ms": round(deadline_ms, 2),
                **{run.policy: {
                    "avoidable_percent": round(run.outcome.avoidable_percent, 3),
                    "gain_percent": round(run.outcome.gain_percent, 2),
                    "oracle_percent": round(run.outcome.oracle_percent, 2),
                } for run in runs if run.deadline_ms == round(deadline_ms, 3)},
            }
            for percentile, deadline_ms in deadlines.items()
        }
    if options.seconds > 0.0:
        report["live"] = _live(options)
    return report


def shipped_trace() -> Path:
    """The recorded times that come with the package; the first place that is looked at where there are none."""
    paths = [folder / "times" / "busy-two-cores.npz" for folder in shared_folders("config")]
    return next((path for path in paths if path.is_file()), paths[0])


def _live(options: argparse.Namespace) -> dict[str, Any]:
    use_own_ros_domain()
    from anydepth_perception.ros.qos import use_image_profile
    from anydepth_perception.tools.bench.deadline_live import measure_live
    from anydepth_perception.tools.demo.run import DemoOptions

    use_image_profile()
    with tempfile.TemporaryDirectory() as folder:
        demo = DemoOptions(options.seconds, Path(folder), options.model, 15.0, 640, 480, options.seed, 0.25)
        return dict(measure_live(demo, Bundle.load(find_bundle(options.model)), options.execution))


def _tables_s() -> float:
    """Seconds for all completion tables of 1,536 configurations."""
    made = network()
    started = time.perf_counter()
    build_tables(made.space, made.step_ms, made.average_precision, made.space.default_points)
    return time.perf_counter() - started

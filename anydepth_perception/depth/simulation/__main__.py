"""Plays the controller and others through made-up loads or recorded times; prints tables, the last line is JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from anydepth_perception.depth.simulation.loads import KINDS
from anydepth_perception.depth.simulation.report import (
    POLICIES,
    as_rows,
    cost,
    markdown,
    replay,
    simulate,
    summary,
)
from anydepth_perception.depth.simulation.trace import TraceError, measured_percentiles, read_trace


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m anydepth_perception.depth.simulation [--trace FILE]`."""
    parser = argparse.ArgumentParser(prog="anydepth_perception.depth.simulation", description=__doc__)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="recorded times; without it, made-up loads")
    parser.add_argument(
        "--deadlines", metavar="MS,MS,...", help="to replay with (default: percentiles of the time at full depth)"
    )
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N,...", help="of made-up loads (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=2500, metavar="N", help="of a load (default: %(default)s)")
    parser.add_argument("--policies", default=",".join(POLICIES), metavar="NAME,...", help="default: %(default)s")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for report.json, report.md and deadlines.png")
    options = parser.parse_args(arguments)
    policies = tuple(options.policies.split(","))
    if unknown := set(policies) - set(POLICIES):
        parser.error(f"unknown policies {', '.join(sorted(unknown))}, there are {', '.join(POLICIES)}")
    try:
        return _play(options, policies)
    except (TraceError, OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _play(options: argparse.Namespace, policies: tuple[str, ...]) -> int:
    if options.trace is None:
        seeds = [int(text) for text in options.seeds.split(",")]
        runs = simulate(seeds, options.frames, policies)
        text = markdown(f"Made-up loads: {', '.join(KINDS)}; seeds {options.seeds}", runs,
                        lambda run: run.trace.partition(" ")[0])
    else:
        trace = read_trace(options.trace)
        if options.deadlines:
            deadlines = [float(number) for number in options.deadlines.split(",")]
        else:
            low, *_, high = measured_percentiles(trace).values()
            deadlines = [*measured_percentiles(trace).values(), *np.linspace(0.8 * low, 1.3 * high, 8).tolist()]
        runs = replay(options.trace, sorted(deadlines), policies)
        text = markdown(f"{options.trace.name}, {len(trace)} frames", runs, lambda run: f"{run.deadline_ms:.1f} ms")
    print(text)
    report = {"summary": {name: summary(runs, name) for name in policies}, **cost(runs, policies[0])}
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "report.md").write_text(text + "\n", encoding="utf-8")
        rows = {**report, "runs": as_rows(runs)}
        (options.output / "report.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        if options.trace is not None:
            from anydepth_perception.depth.simulation.plots import plot_deadlines

            plot_deadlines(runs, options.output / "deadlines.png")
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Trains the variants of a study, seed by seed, evaluates them on one split, and tabulates them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from training.analysis.study import load_study, run_study, runs_of, study_results, table
from training.data.aisle import SPLITS
from training.loop.options import add_device_option


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.study evidence --output runs/evidence`; goes on where it was interrupted."""
    parser = argparse.ArgumentParser(prog="training.study", description=__doc__)
    parser.add_argument("study", help="a study of training/studies, or a YAML file")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs, results.json and results.md")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="VARIANT[:SEED]",
        help="train only this, as often as wanted: so that several commands can share a study out",
    )
    parser.add_argument("--split", default="test", choices=sorted(SPLITS), help="(default: %(default)s)")
    parser.add_argument("--count", type=int, default=500, help="images of the split (default: %(default)s)")
    add_device_option(parser)
    options = parser.parse_args(arguments)
    try:
        study = load_study(options.study)
        options.output.mkdir(parents=True, exist_ok=True)
        evaluated = {"split": options.split, "count": options.count}
        run_study(study, options.output, **evaluated, device=options.device, only=runs_of(options.only, study))
        results = study_results(study, options.output, **evaluated)
        (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    except (RuntimeError, ValueError, ArithmeticError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = table(results)
    (options.output / "results.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

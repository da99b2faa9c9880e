"""The accuracy table of a bundle: AP measured where it matters, and an estimate fitted to that for all the rest."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from training.evaluation.options import add_image_options, chosen_images
from training.export.accuracy import measure_bundle, write_accuracy


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.accuracy models/aisle-yolo-t.anydepth --count 500`."""
    parser = argparse.ArgumentParser(prog="training.accuracy", description=__doc__)
    parser.add_argument("bundle", help="bundle folder, or the name of a shipped bundle; its table is replaced")
    add_image_options(parser, split="val")
    parser.add_argument("--random", type=int, metavar="N", help="more configurations for the fit (default: 48 or 96)")
    parser.add_argument("--held-out", type=int, default=32, metavar="N", help="to test the estimate (default: 32)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the table, as JSON, to this file")
    parser.add_argument("--dry-run", action="store_true", help="leave the bundle as it is")
    options = parser.parse_args(arguments)
    try:
        bundle = Bundle.load(find_bundle(options.bundle))
        images = chosen_images(options, bundle.class_names)
        accuracy = measure_bundle(
            bundle, images, num_random=options.random, num_held_out=options.held_out, progress=sys.stderr.isatty()
        )
        if not options.dry_run:
            bundle = write_accuracy(bundle, accuracy)
        if options.output:
            options.output.write_text(json.dumps(accuracy, indent=1) + "\n", encoding="utf-8")
    except (BundleError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    estimate, measured = accuracy["estimate"], accuracy["configurations"]
    print(f"{bundle.name}: {len(measured)} configurations measured on {accuracy['dataset']}")
    for config in (bundle.full, bundle.base):
        print(f"  {config}: AP {100 * measured[str(config)]['AP']:.1f}")
    print(
        f"estimate of the others: {len(estimate['terms'])} terms, mean absolute error "
        f"{100 * estimate['mean_absolute_error']:.2f} AP over {estimate['num_held_out']} held-out configurations"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Makes the INT8 copy of a bundle and measures its accuracy, as `training.export` does for float32."""

from __future__ import annotations

import argparse
import sys

from anydepth_perception.bundle import Bundle, BundleError, rewrite_bundle
from anydepth_perception.bundle.quantization import CalibrationError
from anydepth_perception.tools.quantize import QuantizeOptions, add_options, describe, quantize
from training.export import measure_accuracy


def measured(bundle: Bundle, count: int) -> Bundle:
    """Writes `bundle` again with the accuracy table of `count` validation images."""
    return rewrite_bundle(bundle, manifest={"accuracy": measure_accuracy(bundle, count)})


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.quantize aisle-yolo-t t-int8.anydepth --images aisle --measure 500`."""
    parser = argparse.ArgumentParser(prog="training.quantize", description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--measure", type=int, metavar="COUNT", default=0, help="fill the accuracy table from COUNT validation images"
    )
    options = parser.parse_args(arguments, QuantizeOptions())
    try:
        bundle = quantize(options)
        if options.measure:
            bundle = measured(bundle, options.measure)
    except (BundleError, CalibrationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(describe(bundle))
    for config in (bundle.full, bundle.base):
        accuracy = f"AP {bundle.average_precision(config):.3f}" if bundle.has_accuracy else "AP unknown"
        print(f"  {config}: {accuracy}, {'measured' if bundle.is_measured(config) else 'not measured'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

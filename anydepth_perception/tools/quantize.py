"""Makes the INT8 copy of a bundle, calibrated on a folder of your own images or on aisle scenes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from anydepth_perception.aisle import AisleScene
from anydepth_perception.bundle import Bundle, BundleError, find_bundle, rewrite_bundle
from anydepth_perception.bundle.plain_run import reference_by_onnxruntime
from anydepth_perception.bundle.quantization import CalibrationError, QuantizationSettings, quantize_bundle
from anydepth_perception.bundle.quantization.calibrate import METHODS
from anydepth_perception.bundle.quantization.place import ACTIVATIONS, CONVOLUTIONS
from anydepth_perception.tools.arguments import fail, whole_number
from anydepth_perception.tools.calibration_images import fit_images, read_folder
from anydepth_perception.tools.interrupt import interruptible

AISLE = "aisle"
DEFAULTS = QuantizationSettings()
TENSORRT = "tensorrt"
PLACEMENT_FOR = {"onnxruntime": ACTIVATIONS, "openvino": CONVOLUTIONS, TENSORRT: CONVOLUTIONS}
"""Where the Q/DQ pairs lie, by the library that the bundle is for."""

_FIRST_SCENE = 1_500_000
_SIZES = ((640, 480), (320, 320))


class QuantizeOptions(argparse.Namespace):
    """What `add_options` sets; `images` is a folder or `AISLE`, `runtime` a key of `PLACEMENT_FOR`."""

    model: str
    output: Path
    images: str
    count: int
    runtime: str
    method: str
    min_products: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    with interruptible():
        parser = argparse.ArgumentParser(prog="quantize", description=__doc__)
        add_options(parser)
        options = parser.parse_args(arguments, QuantizeOptions())
        try:
            print(describe(quantize(options)))
        except (BundleError, CalibrationError, OSError) as error:
            fail(error)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `quantize` reads."""
    parser.add_argument("model", help="float32 bundle, by name or by path")
    parser.add_argument("output", type=Path, help="folder to write, NAME-int8.anydepth")
    parser.add_argument(
        "--images",
        required=True,
        help=f"folder of images as the camera sees them, or {AISLE} for synthetic scenes of the training split",
    )
    parser.add_argument("--count", type=whole_number(1), default=128, help="images to use (default: %(default)s)")
    parser.add_argument(
        "--for",
        dest="runtime",
        choices=sorted(PLACEMENT_FOR),
        default="openvino",
        help="library that shall run it fast; bundles for the first two run anywhere but on TensorRT, "
        "and OpenVINO may compute wrongly from one for TensorRT (default: %(default)s)",
    )
    parser.add_argument(
        "--method", choices=METHODS, default=DEFAULTS.method, help="how ranges are found (default: %(default)s)"
    )
    parser.add_argument(
        "--min-products",
        type=whole_number(1),
        default=DEFAULTS.min_products,
        help="convolutions that sum up fewer products per output stay in float32; with a smaller number OpenVINO "
        "is faster, but engines may differ by more than their self-check allows (default: %(default)s)",
    )


def quantize(options: QuantizeOptions) -> Bundle:
    """Does what the options of `add_options` say, and returns the bundle written.

    Raises:
        BundleError: the bundle is not found, not valid, or quantised already.
        CalibrationError: the images cannot be used.
        OSError: the output cannot be written.
    """
    bundle = Bundle.load(find_bundle(options.model))
    if options.images == AISLE:
        images = aisle_images(options.count)
    else:
        images = read_folder(Path(options.images).expanduser(), options.count)
    settings = QuantizationSettings(
        PLACEMENT_FOR[options.runtime],
        options.method,
        options.min_products,
        signed=options.runtime == TENSORRT,
        weight_bits=8 if options.runtime == TENSORRT else DEFAULTS.weight_bits,  # GPUs add up in 32 bits
    )
    source = "aisle scenes of the training split" if options.images == AISLE else "a folder of images"
    return quantize_with_references(bundle, options.output, images, settings, source=source)


def quantize_with_references(
    bundle: Bundle, path: Path, images: Iterable[np.ndarray], settings: QuantizationSettings, *, source: str
) -> Bundle:
    """Writes the INT8 copy of `bundle` into the folder `path`, with reference outputs for the first image.

    Args:
        bundle: float32.
        path: the folder to write.
        images: uint8 [H, W, 3] RGB of any size.
        settings: how to quantise.
        source: where the images come from, for the manifest.

    Raises:
        BundleError: the bundle is quantised already, or nothing in it can be.
        CalibrationError: there are no images, or one cannot be read.
        OSError: the folder cannot be written.
    """
    fitted = fit_images(images, bundle.manifest.input)
    written = quantize_bundle(bundle, path, fitted, settings, source=source)
    return rewrite_bundle(written, reference=reference_by_onnxruntime(written, fitted[0]))


def aisle_images(count: int) -> Iterator[np.ndarray]:
    """Images of `count` scenes of the training split, uint8 [H, W, 3] RGB, each at another time."""
    for index in range(count):
        yield AisleScene(_FIRST_SCENE + index, *_SIZES[index % len(_SIZES)]).render(float(index % 60)).image


def describe(bundle: Bundle) -> str:
    """One line for the terminal."""
    size = sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
    calibration = bundle.manifest.provenance["calibration"]
    return (
        f"{bundle.path}: INT8, {size / 1e6:.1f} MB, {calibration['images']} calibration images, "
        f"{calibration['method']}, pairs at {calibration['placement']}"
    )


if __name__ == "__main__":
    main()

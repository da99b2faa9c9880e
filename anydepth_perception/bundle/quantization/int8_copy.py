"""Makes an INT8 bundle from a float32 bundle and calibration images."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from anydepth_perception.bundle.bundle import Bundle
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.quantization.calibrate import METHODS, CalibrationError, observe_ranges
from anydepth_perception.bundle.quantization.insert import WEIGHT_STEPS, insert_pairs, is_quantized
from anydepth_perception.bundle.quantization.place import CONVOLUTIONS, PLACEMENTS, SegmentPairs, choose_pairs
from anydepth_perception.bundle.write import read_document, rewrite_bundle
from anydepth_perception.depth.space import DepthConfig, DepthSpace

MODEL_CARD = "MODEL_CARD.md"
NUM_MIXTURES = 4


@dataclass(frozen=True)
class QuantizationSettings:
    """How to quantise.

    `placement` and `min_products` as in `choose_pairs`, `method` minmax or mse. The placement
    `convolutions` has symmetric ranges. They are stored as uint8 around 128: OpenVINO computes wrong results from int8
    activations on some CPUs. TensorRT takes no uint8, for it `signed` stores the same steps as int8 around 0.
    `weight_bits` is 7 or 8: with 8, x86 CPUs without VNNI compute wrong sums (see `WEIGHT_STEPS`).
    `seed` draws the random mixtures of paths.
    """

    placement: str = CONVOLUTIONS
    method: str = "minmax"
    min_products: int = 256
    signed: bool = False
    weight_bits: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, accepted in (("placement", self.placement, PLACEMENTS), ("method", self.method, METHODS)):
            if value not in accepted:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(accepted)}")
        if self.weight_bits not in WEIGHT_STEPS:
            raise ValueError(f"weight_bits is {self.weight_bits}, expected 7 or 8")
        if self.min_products < 1:
            raise ValueError(f"min_products is {self.min_products}, expected 1 or more")
        if self.signed and self.placement != CONVOLUTIONS:
            raise ValueError(f"signed is {self.signed}, expected False with the placement {self.placement}")


def quantize_bundle(
    bundle: Bundle, path: Path, images: Sequence[np.ndarray], settings: QuantizationSettings, *, source: str
) -> Bundle:
    """Writes the INT8 copy of `bundle` into the folder `path` and returns it loaded.

    Every image runs at full, at base and at one of a few random mixtures of paths. The accuracy table is taken over
    as an estimate; references are left out, those of float32 say nothing. The same images and settings give the same
    files.

    Args:
        bundle: float32.
        path: the folder to write, usually `NAME-int8.anydepth`.
        images: uint8 [1, height, width, 3] RGB, of the size of the bundle's input.
        settings: how to quantise.
        source: where the images come from, for the manifest.

    Raises:
        BundleError: the bundle is quantised already, or nothing in it can be.
        CalibrationError: there are no images, or one is of another size.
    """
    models = {name: bundle.read_segment(segment) for name, segment in bundle.manifest.segments.items()}
    if any(is_quantized(model) for model in models.values()):
        raise BundleError(f"{bundle.path}: is INT8 already; quantise the float32 bundle it was made from")
    segment_pairs = _choose_all_pairs(bundle, models, settings)
    _check_images(images, bundle.input_spec().shape)
    symmetric = settings.placement == CONVOLUTIONS
    runs = _runs(bundle.space, images, settings.seed)
    tensors = {tensor for pairs in segment_pairs.values() for tensor in pairs.tensors}
    ranges = observe_ranges(bundle, runs, tensors, settings.method, symmetric=symmetric)
    for pairs in segment_pairs.values():
        for target, origin in pairs.same_range.items():
            ranges[target] = ranges[origin]
    segments = {
        name: insert_pairs(
            model,
            name,
            segment_pairs[name],
            ranges,
            symmetric=symmetric,
            signed=settings.signed,
            weight_bits=settings.weight_bits,
        )
        for name, model in models.items()
    }
    name = path.name.removesuffix(".anydepth")
    manifest = {
        "name": name,
        "accuracy": _accuracy_as_estimate(bundle),
        "provenance": _provenance(bundle, settings, len(images), source),
    }
    files = dict.fromkeys(bundle.manifest.files) | {MODEL_CARD: _model_card(bundle, name)}
    return rewrite_bundle(bundle, path, manifest=manifest, segments=segments, files=files)


def _choose_all_pairs(
    bundle: Bundle, models: Mapping[str, onnx.ModelProto], settings: QuantizationSettings
) -> dict[str, SegmentPairs]:
    outputs = bundle.manifest.outputs
    segment_pairs = {
        name: choose_pairs(
            model,
            placement=settings.placement,
            min_products=settings.min_products,
            final_outputs=(outputs.boxes, outputs.logits),
        )
        for name, model in models.items()
    }
    if not any(pairs.convolutions for pairs in segment_pairs.values()):
        raise BundleError(f"{bundle.path}: no convolution sums up {settings.min_products} products or more")
    return segment_pairs


def _check_images(images: Sequence[np.ndarray], shape: tuple[int, ...]) -> None:
    if not images:
        raise CalibrationError("there are no calibration images; at least one is needed, 100 or more are advisable")
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.shape != shape:
            raise CalibrationError(
                f"calibration image {index} is {image.dtype}{list(image.shape)}, expected uint8{list(shape)}"
            )


def _runs(
    space: DepthSpace, images: Sequence[np.ndarray], seed: int
) -> list[tuple[np.ndarray, list[DepthConfig]]]:
    """Each image with full, base and one of the mixtures; the first also with every exit, so that all segments run."""
    generator = random.Random(seed)
    mixtures = [
        space.executed(DepthConfig(tuple(generator.random() < 0.5 for _ in space.stages), space.full.exit))
        for _ in range(NUM_MIXTURES)
    ]
    exits = [space.with_full(space.stages, number) for number in range(1, space.num_exits)]
    return [
        (image, [space.full, space.base, mixtures[index % NUM_MIXTURES], *(exits if index == 0 else ())])
        for index, image in enumerate(images)
    ]


def _accuracy_as_estimate(bundle: Bundle) -> dict[str, Any]:
    """The float32 bundle's accuracy table, in which nothing is measured any more."""
    accuracy: dict[str, Any] = read_document(bundle)["accuracy"]
    if accuracy["configurations"]:
        accuracy["dataset"] += ", float32"
        for entry in accuracy["configurations"].values():
            entry["measured"] = False
    return accuracy


def _provenance(bundle: Bundle, settings: QuantizationSettings, num_images: int, source: str) -> dict[str, Any]:
    """The float32 bundle's provenance with the facts of the quantisation."""
    return {
        **bundle.manifest.provenance,
        "precision": "int8",
        "quantized_from": bundle.name,
        "quantized_from_manifest_sha256": bundle.fingerprint,
        "calibration": {
            "images": num_images,
            "source": source,
            "method": settings.method,
            "placement": settings.placement,
            "min_products": settings.min_products,
            "activations": "int8" if settings.signed else "uint8",
            "weight_bits": settings.weight_bits,
            "mixtures": NUM_MIXTURES,
            "seed": settings.seed,
        },
    }


def _model_card(bundle: Bundle, name: str) -> bytes:
    sha256 = bundle.manifest.files.get(MODEL_CARD)
    original = bundle.read_file(MODEL_CARD, sha256).decode("utf-8") if sha256 else ""
    note = f"""# {name}

The INT8 copy of the bundle `{bundle.name}`: the convolutions' weights and inputs are 8 bits wide, all else is float32.
How it was calibrated stands in the manifest under `provenance`. What follows describes the float32 bundle.

"""
    return (note + original).encode()

"""Makes an INT8 bundle from a float32 bundle and calibration images."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anydepth_perception.bundle import Bundle, BundleError, rewrite_bundle
from anydepth_perception.bundle.plain_run import reference_by_onnxruntime
from anydepth_perception.bundle.quantization.calibrate import METHODS, CalibrationError, observe_ranges
from anydepth_perception.bundle.quantization.insert import WEIGHT_STEPS, insert_pairs, is_quantized
from anydepth_perception.bundle.quantization.place import CONVOLUTIONS, PLACEMENTS, plan_segment
from anydepth_perception.bundle.write import read_document
from anydepth_perception.depth.config import STAGES, DepthConfig
from anydepth_perception.tools.calibration_images import fit_images

MODEL_CARD = "MODEL_CARD.md"
NUM_MIXTURES = 4


@dataclass(frozen=True)
class QuantizationSettings:
    """How to quantise.

    `placement` and `min_products` as in `plan_segment`, `method` minmax or mse. The placement
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
    bundle: Bundle, path: Path, images: Iterable[np.ndarray], settings: QuantizationSettings, *, source: str
) -> Bundle:
    """Writes the INT8 copy of `bundle` into the folder `path` and returns it loaded.

    Every image runs at full, at base and at one of a few random mixtures of paths. The accuracy table is taken over
    as an estimate; the reference outputs are new, of the first image. The same images and settings give the same files.

    Args:
        bundle: float32.
        path: the folder to write, usually `NAME-int8.anydepth`.
        images: uint8 [H, W, 3] RGB.
        settings: how to quantise.
        source: where the images come from, for the manifest.

    Raises:
        BundleError: the bundle is quantised already, or nothing in it can be.
        CalibrationError: there are no images, or one cannot be read.
    """
    models = {name: bundle.read_segment(segment) for name, segment in bundle.manifest.segments.items()}
    if any(is_quantized(model) for model in models.values()):
        raise BundleError(f"{bundle.path}: is INT8 already; quantise the float32 bundle it was made from")
    outputs = bundle.manifest.outputs
    plans = {
        name: plan_segment(
            model,
            placement=settings.placement,
            min_products=settings.min_products,
            final_outputs=(outputs.boxes, outputs.logits),
        )
        for name, model in models.items()
    }
    if not any(plan.convolutions for plan in plans.values()):
        raise BundleError(f"{bundle.path}: no convolution sums up {settings.min_products} products or more")
    fitted = fit_images(images, bundle.manifest)
    if not fitted:
        raise CalibrationError("there are no calibration images; at least one is needed, 100 or more are advisable")
    symmetric = settings.placement == CONVOLUTIONS
    runs = _runs(bundle, fitted, settings.seed)
    tensors = {tensor for plan in plans.values() for tensor in plan.tensors}
    ranges = observe_ranges(bundle, runs, tensors, settings.method, symmetric=symmetric)
    for plan in plans.values():
        for target, origin in plan.same_range.items():
            ranges[target] = ranges[origin]
    segments = {
        name: insert_pairs(
            model,
            name,
            plans[name],
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
        "provenance": _provenance(bundle, settings, len(fitted), source),
    }
    files = dict.fromkeys(bundle.manifest.files) | {MODEL_CARD: _model_card(bundle, name)}
    written = rewrite_bundle(bundle, path, manifest=manifest, segments=segments, files=files)
    return rewrite_bundle(written, reference=reference_by_onnxruntime(written, fitted[0]))


def _runs(bundle: Bundle, images: list[np.ndarray], seed: int) -> list[tuple[np.ndarray, list[DepthConfig]]]:
    """Each image with full, base and one of the mixtures; the first also with every exit, so that all segments run."""
    generator = random.Random(seed)
    last = bundle.full.exit
    mixtures = [DepthConfig(tuple(generator.random() < 0.5 for _ in STAGES), last) for _ in range(NUM_MIXTURES)]
    exits = [DepthConfig(bundle.full.full_paths, index) for index in range(1, bundle.space.num_exits)]
    return [
        (image, [bundle.full, bundle.base, mixtures[index % NUM_MIXTURES], *(exits if index == 0 else ())])
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

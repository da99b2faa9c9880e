"""Makes a bundle of a weights file: segments, manifest, model card, accuracy, references, each after what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anydepth_perception.bundle import Bundle, write_bundle
from training.export.accuracy import write_accuracy
from training.export.manifest import manifest_of, provenance_of
from training.export.model_card import MODEL_CARD, model_card
from training.export.references import write_references
from training.export.segments import export_segments
from training.recipes.weights import Weights


def export_bundle(
    weights: Weights,
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    measure: Callable[[Bundle], Mapping[str, Any]] | None = None,
) -> Bundle:
    """Writes the bundle of a network to the folder `path`, and returns it loaded and verified.

    Accuracy comes before the references: the ladder, whose configurations they are of, follows from it.

    Args:
        weights: the network.
        path: the folder to write, `NAME.anydepth`.
        image_size: (height, width) of the input in pixels, multiples of 32; the recipe's if None.
        measure: the accuracy table of a bundle; None leaves the table empty.

    Raises:
        RecipeError: no such image size.
        BundleError: the parts do not make a valid bundle.
    """
    recipe = weights.recipe if image_size is None else dataclasses.replace(weights.recipe, image_size=image_size)
    models, gflops = export_segments(weights.model, recipe.image_size)
    name = path.name.removesuffix(".anydepth")
    manifest = manifest_of(name, weights.model, recipe, weights.class_names, gflops, provenance_of(weights))
    bundle = write_bundle(path, manifest, models, {MODEL_CARD: model_card(manifest).encode()})
    if measure is not None:
        bundle = write_accuracy(bundle, measure(bundle))
    return write_references(bundle, weights.model)

"""The manifest of an exported bundle: what the network is, what its outputs need, and where its weights come from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from anydepth_perception.depth.space import ESSENTIAL, EXITS, FULL, Step
from training.export.model_card import AISLE_DATASET
from training.families import family_of
from training.models.detector import AnyDepthDetector
from training.models.segments import segments_by_step
from training.recipes.recipe import Recipe
from training.recipes.weights import Weights

METRIC = "AP (COCO 0.50:0.95), in [0,1]"
"""What the accuracy table of a bundle holds, in words."""

PAD_VALUE = 114
"""Grey of the borders of a letterboxed image, as in training."""


def manifest_of(
    name: str,
    model: AnyDepthDetector,
    recipe: Recipe,
    class_names: list[str],
    gflops: dict[str, float],
    provenance: dict[str, Any],
    accuracy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a bundle, without the sums that `write_bundle` adds."""
    height, width = recipe.image_size
    family = family_of(recipe.model)
    needs = family.outputs
    space, segments = model.space, segments_by_step(model.space)
    # A stage with nothing to skip runs its full segment on both paths.
    stages = {
        stage: {
            path: segments[Step(stage, path if stage in space.skippable else FULL)][0] for path in (ESSENTIAL, FULL)
        }
        for stage in space.stages
    }
    exits = {step.way.removeprefix("d"): list(names) for step, names in segments.items() if step.entry == EXITS}
    return {
        "name": name,
        "model": recipe.model,
        "family": family.name,
        "input": {"name": "images", "height": height, "width": width, "resize": recipe.resize, "pad_value": PAD_VALUE},
        "outputs": {"boxes": "boxes", "logits": "logits", "ordered": needs.ordered},
        "class_names": class_names,
        "num_exits": space.num_exits,
        "pipeline": list(space.names),
        "stages": stages,
        "exits": exits,
        "segments": {segment: {"gflops": round(value, 6)} for segment, value in gflops.items()},
        "postprocess": {"nms": needs.nms, "iou_threshold": needs.iou_threshold, "multi_label": needs.multi_label},
        "accuracy": accuracy or {"dataset": "none", "metric": METRIC, "configurations": {}},
        "provenance": provenance,
    }


def provenance_of(weights: Weights) -> dict[str, Any]:
    """Where weights come from, for the manifest."""
    if weights.provenance is not None:
        return {**weights.provenance, "commit": git_commit()}
    recipe = weights.recipe
    samples, dataset = ("aisle scenes", AISLE_DATASET) if recipe.coco is None else ("images", recipe.coco.annotations)
    passes = " and ".join(f"{name}-net" for name in recipe.trained_passes)
    learnt = "labels" if recipe.distillation is None else "labels and self-distillation"
    provenance = {
        "recipe": f"{recipe.model}, {weights.iteration} iterations of {recipe.batch_size} {samples}",
        "training": f"{passes} on {learnt}",
        "dataset": Path(dataset).name,
        "iterations": weights.iteration,
        "seed": recipe.seed,
        "commit": git_commit(),
    }
    return provenance if recipe.initial_weights is None else {**provenance, "started_from": recipe.initial_weights}


def git_commit() -> str:
    """The commit that the working tree is at, or `unknown`."""
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"

"""Training samples of aisle scenes: rendered on the fly, deterministic per (seed, iteration), fitted as at run time."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from anydepth_perception.aisle import CLASS_NAMES, AisleFrame
from training.data.aisle import SPLITS, render_image
from training.data.annotated import Annotated, Sample, SampleError, fit, mirror
from training.recipes.recipe import Recipe

SCENES_PER_SEED = 100_000
"""Runs of different seeds start this many scenes apart."""


def annotated(frame: AisleFrame) -> Annotated:
    """A rendered frame with its objects."""
    boxes, ignored = (x.reshape(-1, 4).astype(np.float32) for x in (frame.boxes, frame.ignore_boxes))
    return Annotated(frame.image, boxes, frame.class_ids.astype(np.int64), ignored)


class TrainingScenes(Dataset[Sample]):
    """Sample i of a run: scene i of the training split, so that a run never sees a scene twice.

    Frame size and mirroring are drawn from (seed, i) alone: the same whichever worker renders it, and after a resume.

    Attributes:
        class_names: by class index.
        description: what there is to train on, in words.
    """

    class_names: tuple[str, ...] = tuple(CLASS_NAMES)
    description = "aisle scenes"

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __len__(self) -> int:
        return self.recipe.iterations * self.recipe.batch_size

    def __getitem__(self, index: int) -> Sample:
        scene = (self.recipe.seed * SCENES_PER_SEED + index) % len(SPLITS["train"])
        try:
            return self._sample(index, scene)
        except Exception as error:
            raise SampleError(f"training scene {scene}: {type(error).__name__}: {error}") from error

    def _sample(self, index: int, scene: int) -> Sample:
        data = self.recipe.data
        random = np.random.default_rng((self.recipe.seed, index))
        weights = np.array(data.frame_weights) / sum(data.frame_weights)
        size = data.frame_sizes[int(random.choice(len(weights), p=weights))]
        image_size = self.recipe.image_size_at(index // self.recipe.batch_size)
        fitted = fit(annotated(render_image("train", scene, size)), image_size, self.recipe.resize)
        return (mirror(fitted) if random.random() < data.flip else fitted).to_sample()

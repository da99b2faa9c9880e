"""A network and its bundle, for tests that hold one against the other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from random_weights import randomise
from spaces import STAGES

from anydepth_perception.bundle import Bundle, write_bundle
from anydepth_perception.depth.space import DepthConfig
from training.export.manifest import manifest_of
from training.export.segments import export_segments
from training.families import build_model
from training.models.detector import AnyDepthDetector
from training.models.detr import AnyDepthDetr
from training.recipes.recipe import Recipe

SMALLEST_MARGIN = 1e-5
"""Between the last selected query and the first left out: below it, rounding may choose either."""

RANDOM_WEIGHTS = {"detr-r18": (1, 2.2), "detr-r50": (2, 2.0), "yolo-l": (0, 2.45)}
"""Seed and gain, such that the image matters, rounding errors do not, and query selection is far from a tie."""

CLASS_NAMES = [f"class {i}" for i in range(80)]


@dataclass(frozen=True)
class Exported:
    """A network, its bundle, and an image uint8 [1, H, W, 3] for both."""

    model: AnyDepthDetector
    bundle: Bundle
    image: np.ndarray

    def in_torch(self, config: DepthConfig) -> tuple[np.ndarray, float]:
        """Boxes in [0, 1] and logits, [N, 4 + C], and the margin of query selection (infinite without any)."""
        margins = [float("inf")]

        def note_margin(module: object, inputs: object, logits: torch.Tensor) -> None:
            margins.append(selection_margin(logits.amax(dim=2)[0]))

        hooks = []
        if isinstance(self.model, AnyDepthDetr):
            hooks.append(self.model.decoder.selection.score.register_forward_hook(note_margin))
        with torch.no_grad():
            outputs = self.model(to_float(self.image), config)
        for hook in hooks:
            hook.remove()
        height, width = self.image.shape[1:3]
        boxes = outputs["boxes"] / torch.tensor([width, height, width, height])
        return torch.cat([boxes, outputs["logits"]], dim=2)[0].numpy(), min(margins)

    def difference(self, found: np.ndarray, expected: np.ndarray) -> float:
        """Largest difference of rows [N, 4 + C]; those of a DETR are paired, as their order is not defined."""
        if isinstance(self.model, AnyDepthDetr):
            return unordered_difference(found, expected)
        return float(np.abs(found - expected).max())

    def configurations(self, num_mixtures: int) -> Iterator[tuple[DepthConfig, np.ndarray]]:
        """Full, base, and random mixtures whose query selection is far from a tie, with what `in_torch` says."""
        picks = random.Random(0)
        for config in (self.bundle.full, self.bundle.base):
            expected, margin = self.in_torch(config)
            assert margin >= SMALLEST_MARGIN, f"{config}: query selection is within {margin:.1e} of a tie"
            yield config, expected
        while num_mixtures:
            exit_index = picks.randint(1, self.bundle.space.num_exits) if self.bundle.space.num_exits else None
            config = DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES), exit_index)
            expected, margin = self.in_torch(config)
            if margin >= SMALLEST_MARGIN:
                num_mixtures -= 1
                yield config, expected


def export_with_random_weights(name: str, size: int, folder: Path) -> Exported:
    """Writes a bundle of the network `name`, for square images of `size` pixels, into `folder`."""
    seed, gain = RANDOM_WEIGHTS[name]
    torch.manual_seed(seed)
    model = build_model(name, len(CLASS_NAMES)).eval()
    randomise(model, gain=gain)
    noise = np.random.default_rng(2).integers(0, 256, (20, 20, 3), np.uint8)
    image = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)[None]
    recipe = Recipe(model=name, image_size=(size, size))
    models, gflops = export_segments(model, recipe.image_size)
    manifest = manifest_of("random", model, recipe, CLASS_NAMES, gflops, {"seed": 0})
    return Exported(model, write_bundle(folder / "random.anydepth", manifest, models), image)


def to_float(image: np.ndarray) -> torch.Tensor:
    """uint8 [1, H, W, 3] -> float [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255


def selection_margin(scores: torch.Tensor) -> float:
    """How far the scores [N] of cells are from another choice of the best 300.

    Cells without a valid anchor all have one score and one content: which of them is chosen makes no difference.
    """
    last, first_out = scores.sort(descending=True).values[299:301]
    if last > first_out:
        return float(last - first_out)
    return float((scores[scores != last] - last).abs().min())


def unordered_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of rows [N, D] paired with their nearest; the order of equal scores is not defined."""
    distances = torch.cdist(torch.from_numpy(ours), torch.from_numpy(theirs), p=float("inf"))
    nearest = distances.min(dim=1)
    assert len(nearest.indices.unique()) == len(ours), "two rows have the same partner"
    return float(nearest.values.max())

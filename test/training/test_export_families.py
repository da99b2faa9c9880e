"""Export of the papers' sizes at 640x640: composed segments put out what PyTorch does, for any mixture of paths."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from random_weights import randomise

from anydepth_perception.backends import create_backend, run_once
from anydepth_perception.bundle import Bundle, write_bundle
from anydepth_perception.depth.config import STAGES, DepthConfig
from training.export import export_segments, manifest_of
from training.models.build import build_model
from training.models.detector import AnyDepthDetector
from training.models.detr import AnyDepthDetr
from training.recipe import Recipe

SIZE = 640
NUM_MIXTURES = 5
CLASS_NAMES = [f"class {i}" for i in range(80)]
SMALLEST_MARGIN = 1e-5
"""Between the last selected query and the first left out: below it, rounding may choose either."""


@dataclass(frozen=True)
class Exported:
    """A network, its bundle, and an image for both."""

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
        return torch.cat([outputs["boxes"] / SIZE, outputs["logits"]], dim=2)[0].numpy(), min(margins)

    def in_onnx_runtime(self, config: DepthConfig) -> np.ndarray:
        """The same from the composed segments."""
        outputs = run_once(create_backend("onnxruntime"), self.bundle.compose(config), {"images": self.image})
        return np.concatenate([outputs["boxes"], outputs["logits"]], axis=2)[0]

    def configurations(self) -> Iterator[DepthConfig]:
        """Full, base, and random mixtures without end."""
        picks = random.Random(0)
        yield self.bundle.full
        yield self.bundle.base
        while True:
            exit_index = picks.randint(1, self.bundle.num_exits) if self.bundle.num_exits else None
            yield DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES), exit_index)


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


RANDOM_WEIGHTS = {"detr-r18": (1, 2.2), "detr-r50": (2, 2.0), "yolo-l": (0, 2.45)}
"""Seed and gain, such that the image matters, rounding errors do not, and query selection is far from a tie."""


@pytest.fixture(scope="module", params=RANDOM_WEIGHTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    seed, gain = RANDOM_WEIGHTS[request.param]
    torch.manual_seed(seed)
    model = build_model(request.param, len(CLASS_NAMES)).eval()
    randomise(model, gain=gain)
    noise = np.random.default_rng(2).integers(0, 256, (20, 20, 3), np.uint8)
    image = cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)[None]
    recipe = Recipe(model=request.param, image_size=(SIZE, SIZE))
    models, gflops = export_segments(model, recipe.image_size)
    manifest = manifest_of("random", model, recipe, CLASS_NAMES, gflops, {"seed": 0})
    bundle = write_bundle(tmp_path_factory.mktemp("bundles") / "random.anydepth", manifest, models)
    return Exported(model, bundle, image)


def unordered_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of rows [N, D] paired with their nearest; the order of equal scores is not defined."""
    distances = torch.cdist(torch.from_numpy(ours), torch.from_numpy(theirs), p=float("inf"))
    nearest = distances.min(dim=1)
    assert len(nearest.indices.unique()) == len(ours), "two rows have the same partner"
    return float(nearest.values.max())


def test_full_base_and_mixtures_agree_with_torch(exported: Exported) -> None:
    mixtures = 0
    for config in exported.configurations():
        expected, margin = exported.in_torch(config)
        extreme = config in (exported.bundle.full, exported.bundle.base)
        if margin < SMALLEST_MARGIN:
            assert not extreme, f"{config}: query selection is within {margin:.1e} of a tie; choose another seed"
            continue
        found = exported.in_onnx_runtime(config)
        if isinstance(exported.model, AnyDepthDetr):
            difference = unordered_difference(found, expected)
        else:
            difference = float(np.abs(found - expected).max())
        assert difference < 1e-4, f"{config}: {difference}"
        mixtures += not extreme
        if mixtures == NUM_MIXTURES:
            return


def test_the_random_network_tells_depths_and_places_apart(exported: Exported) -> None:
    full, base = (exported.in_torch(config)[0][:, 4:] for config in (exported.bundle.full, exported.bundle.base))
    assert np.abs(full - base).max() > 0.1
    assert min(full.std(axis=0).mean(), base.std(axis=0).mean()) > 0.1


def test_depth_saves_the_work_that_the_paper_says(exported: Exported) -> None:
    saved = exported.bundle.gflops(exported.bundle.full) - exported.bundle.gflops(exported.bundle.base)
    # In a bundle RepVgg branches are one convolution and attention products count, so less than the tables' figures
    # for the encoder and more for area attention.
    low, high = {"detr-r18": (15, 25), "detr-r50": (45, 56), "yolo-l": (23, 28)}[exported.model.name]
    assert low < saved < high


def test_only_the_yolo_bundle_asks_for_suppression(exported: Exported) -> None:
    is_yolo = exported.model.name.startswith("yolo")
    assert exported.bundle.manifest.postprocess.nms == is_yolo
    assert exported.bundle.manifest.family == ("yolo" if is_yolo else "detr")
    assert exported.bundle.num_exits == {"detr-r18": 3, "detr-r50": 6, "yolo-l": 0}[exported.model.name]

"""Export of the papers' sizes at 640x640: composed segments put out what PyTorch does, for any mixture of paths."""

from __future__ import annotations

import numpy as np
import pytest
from exported import RANDOM_WEIGHTS, Exported, export_with_random_weights

from anydepth_perception.backends import create_backend, run_once

SIZE = 640
NUM_MIXTURES = 5


@pytest.fixture(scope="module", params=RANDOM_WEIGHTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_with_random_weights(request.param, SIZE, tmp_path_factory.mktemp("bundles"))


def test_full_base_and_mixtures_agree_with_torch(exported: Exported) -> None:
    backend = create_backend("onnxruntime")
    for config, expected in exported.configurations(NUM_MIXTURES):
        outputs = run_once(backend, exported.bundle.compose(config), {"images": exported.image})
        found = np.concatenate([outputs["boxes"], outputs["logits"]], axis=2)[0]
        difference = exported.difference(found, expected)
        assert difference < 1e-4, f"{config}: {difference}"


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
    assert exported.bundle.space.num_exits == {"detr-r18": 3, "detr-r50": 6, "yolo-l": 0}[exported.model.name]

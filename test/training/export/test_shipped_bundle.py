"""The bundle that ships: the weights beside it give its numbers, it is small, and it detects."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from spaces import EIGHT, STAGES

from anydepth_perception.aisle import CLASS_NAMES
from anydepth_perception.backends import create_backend, run_once
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.bundle.plain_run import reference_configs
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.detection.preprocess import Preprocessor
from anydepth_perception.execution.self_check import difference
from training.data.aisle import render_image
from training.evaluation.images import AisleImages
from training.evaluation.results import bundle_metrics
from training.export.accuracy import configs_that_matter
from training.models.yolo import AnyDepthYolo
from training.recipes.weights import load_weights

NAME = "aisle-yolo-t"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(find_bundle(NAME))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> AnyDepthYolo:
    weights = load_weights(bundle.path.with_name(f"{NAME}.safetensors"))
    assert tuple(weights.class_names) == bundle.class_names == CLASS_NAMES
    assert weights.recipe.image_size == (bundle.manifest.input.height, bundle.manifest.input.width)
    return weights.model


def configurations() -> list[DepthConfig]:
    picks = random.Random(1)
    mixtures = [DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES)) for _ in range(10)]
    return [EIGHT.full, EIGHT.base, *mixtures]


@pytest.mark.parametrize("config", configurations(), ids=str)
def test_torch_and_the_bundle_agree_on_raw_outputs(bundle: Bundle, model: AnyDepthYolo, config: DepthConfig) -> None:
    size = bundle.manifest.input
    preprocess = Preprocessor(size.height, size.width)
    preprocess(render_image("val", 0, (640, 480)).image)
    outputs = run_once(create_backend("onnxruntime"), bundle.compose(config), {"images": preprocess.buffer})
    with torch.no_grad():
        expected = model(torch.from_numpy(preprocess.buffer).permute(0, 3, 1, 2).float() / 255, config)
    scale = np.array([size.width, size.height] * 2, np.float32)
    assert np.abs(outputs["boxes"] - expected["boxes"].numpy() / scale).max() < 1e-4
    assert np.abs(outputs["logits"] - expected["logits"].numpy()).max() < 1e-4


def test_its_references_are_what_torch_puts_out(bundle: Bundle, model: AnyDepthYolo) -> None:
    stored = bundle.read_reference()
    assert stored is not None
    height, width = stored.image.shape[1:3]
    for config, rows in stored.rows.items():
        with torch.no_grad():
            outputs = model(torch.from_numpy(stored.image.copy()).permute(0, 3, 1, 2).float() / 255, config)
        boxes = outputs["boxes"] / torch.tensor([width, height] * 2)
        assert difference(rows, boxes.numpy(), outputs["logits"].numpy(), ordered=True) < 1e-4, str(config)


def test_its_references_show_objects(bundle: Bundle) -> None:
    stored = bundle.read_reference()
    assert stored is not None
    assert (stored.rows[bundle.full].logits.max(axis=1) > 0).sum() >= 3


def test_it_has_references_of_all_that_is_run_by_default(bundle: Bundle) -> None:
    stored = bundle.read_reference()
    assert stored is not None
    missing = set(reference_configs(bundle)) - set(stored.rows)
    assert not missing, "write them with training.export WEIGHTS BUNDLE --references-only"


def test_the_bundle_takes_at_most_15_megabytes(bundle: Bundle) -> None:
    assert sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file()) <= 15e6


def test_the_accuracy_table_rests_on_measurements(bundle: Bundle) -> None:
    measured = bundle.manifest.accuracy.configurations
    assert all(measured[config].measured for config in configs_that_matter(bundle.space))
    assert bundle.average_precision(bundle.full) > bundle.average_precision(bundle.base) > 0.2


def test_the_default_ladder_has_at_least_five_rungs(bundle: Bundle) -> None:
    assert len(bundle.default_configs()) >= 5


def test_it_detects_on_a_few_validation_images(bundle: Bundle) -> None:
    metrics = bundle_metrics(bundle, [bundle.full, bundle.base], AisleImages("val", 16))
    assert all(values["AP50"] > 0.45 for values in metrics.values())

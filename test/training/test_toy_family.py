"""A family is one record and its own files: a toy one is built, trained by the real loop, exported and served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_family import TOY

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, write_bundle
from anydepth_perception.depth.space import EXITS
from anydepth_perception.detection.detector import Detector
from training import families
from training.data.settings import SceneSettings
from training.evaluation.flops import count_parts, flops_at, meta_model
from training.evaluation.images import AisleImages
from training.evaluation.results import model_results
from training.export.manifest import manifest_of
from training.export.segments import export_segments
from training.loop.trainer import Trainer, train
from training.recipes.recipe import Recipe
from training.recipes.weights import Weights, load_weights

RECIPE = Recipe(
    model="toy-tiny",
    image_size=(64, 64),
    iterations=3,
    batch_size=2,
    validation_images=2,
    validate_every=3,
    checkpoint_every=3,
    workers=0,
    distillation=TOY.distillation,
    data=SceneSettings(frame_sizes=((64, 64),)),
)


@pytest.fixture(scope="module", autouse=True)
def third_family() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "FAMILIES", (*families.FAMILIES, TOY))
        yield


@pytest.fixture(scope="module")
def weights(third_family: None, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Of a run of a few steps: super-net, base-net and distillation, with validation at its end."""
    folder = tmp_path_factory.mktemp("toy")
    train(RECIPE, folder)
    return load_weights(folder / "model.safetensors")


@pytest.fixture(scope="module")
def bundle(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    models, gflops = export_segments(weights.model, RECIPE.image_size)
    manifest = manifest_of("toy", weights.model, RECIPE, weights.class_names, gflops, {"seed": 0})
    return write_bundle(tmp_path_factory.mktemp("bundle") / "toy.anydepth", manifest, models)


def test_its_models_are_known_by_name() -> None:
    assert families.model_names()[-2:] == ("toy-tiny", "toy-small")
    assert families.family_of("toy-small") is TOY


def test_its_space_is_its_own(weights: Weights) -> None:
    space = weights.model.space
    assert space.names == ("stem", "first", "second", "third", "fourth", "head")
    assert space.skippable == ("first", "second", "fourth")
    assert [str(space.full), str(space.base)] == ["FFFF", "EEFE"]


def test_its_training_trained_both_nets_and_validated(weights: Weights, tmp_path: Path) -> None:
    trained = {name: p for name, p in weights.model.named_parameters() if p.requires_grad}
    torch.manual_seed(RECIPE.seed)
    started = dict(Trainer(RECIPE, tmp_path).model.named_parameters())
    still = [name for name in trained if torch.equal(trained[name], started[name])]
    assert still == []


def test_its_bundle_has_the_entries_of_its_space_and_its_family(weights: Weights, bundle: Bundle) -> None:
    assert bundle.space == weights.model.space
    assert EXITS not in bundle.space.names
    assert bundle.manifest.family == "toy"
    assert bundle.manifest.postprocess.iou_threshold == 0.5


def test_its_bundle_puts_out_what_torch_does_at_every_depth(weights: Weights, bundle: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    configs = list(bundle.space.all())
    detector = Detector(bundle, create_backend("onnxruntime"), configs=configs)
    for config in configs:
        with torch.no_grad():
            outputs = weights.model(pixels, config)
        found = detector.detect(image, config, score_threshold=0.0, max_detections=1).detections
        assert len(found.scores) == 1
        assert float(found.scores[0]) == pytest.approx(float(outputs["logits"].sigmoid().max()), abs=1e-5)


def test_its_costs_are_counted_and_agree_with_those_of_its_bundle(bundle: Bundle) -> None:
    model = meta_model("toy-tiny", len(bundle.class_names))
    parts = count_parts(model, RECIPE.image_size)
    for config in model.space.all():
        counted = flops_at(parts, model.space, config).total / 1e9
        assert bundle.gflops(config) == pytest.approx(counted, rel=1e-3)


def test_it_is_evaluated_with_the_suppression_that_its_record_asks_for(weights: Weights) -> None:
    images = AisleImages("val", 2)
    results = model_results(weights.model, [weights.model.space.base], images, RECIPE)
    assert len(results) == 2

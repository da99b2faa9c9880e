"""Export: segments that compose into what PyTorch computes, at any mixture of paths."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_weights import randomise
from spaces import EIGHT, STAGES

from anydepth_perception.backends import create_backend, run_once
from anydepth_perception.bundle import Bundle, rewrite_bundle, write_bundle
from anydepth_perception.bundle.plain_run import reference_configs
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.execution import Execution, SelfCheckError
from training.data.settings import CocoSettings
from training.export.__main__ import main
from training.export.bundle import export_bundle
from training.export.manifest import manifest_of, provenance_of
from training.export.model_card import AISLE_DATASET, model_card
from training.export.references import reference_image, reference_in_torch
from training.export.segments import export_segments
from training.families import build_model
from training.losses.distillation import DistillationSettings
from training.models.yolo import AnyDepthYolo
from training.recipes.recipe import Recipe, RecipeError
from training.recipes.weights import Weights, load_weights, save_weights

CLASS_NAMES = ["a", "b", "c"]
RECIPE = Recipe(model="yolo-t", image_size=(96, 128))


@pytest.fixture(scope="module")
def model() -> AnyDepthYolo:
    torch.manual_seed(0)
    network = build_model("yolo-t", len(CLASS_NAMES)).eval()
    randomise(network)
    return network


@pytest.fixture(scope="module")
def bundle(model: AnyDepthYolo, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    models, gflops = export_segments(model, RECIPE.image_size)
    manifest = manifest_of("random", model, RECIPE, CLASS_NAMES, gflops, {"seed": 0})
    return write_bundle(tmp_path_factory.mktemp("bundles") / "random.anydepth", manifest, models)


def configurations() -> list[DepthConfig]:
    picks = random.Random(0)
    mixtures = [DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES)) for _ in range(10)]
    return [EIGHT.full, EIGHT.base, *mixtures]


@pytest.mark.parametrize("config", configurations(), ids=str)
def test_torch_and_onnx_runtime_agree_on_raw_outputs(model: AnyDepthYolo, bundle: Bundle, config: DepthConfig) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 96, 128, 3), np.uint8)
    outputs = run_once(create_backend("onnxruntime"), bundle.compose(config), {"images": image})
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255, config)
    scale = np.array([128, 96, 128, 96], np.float32)
    assert np.abs(outputs["boxes"] - expected["boxes"].numpy() / scale).max() < 1e-4
    assert np.abs(outputs["logits"] - expected["logits"].numpy()).max() < 1e-4


def test_deeper_configurations_cost_more(bundle: Bundle) -> None:
    base = bundle.gflops(bundle.base)
    for index in range(len(STAGES)):
        assert bundle.gflops(DepthConfig(tuple(i == index for i in range(8)))) > base
    assert bundle.gflops(bundle.full) > 1.2 * base


def test_no_batch_norm_is_left_in_a_segment(bundle: Bundle) -> None:
    operators = {node.op_type for node in bundle.compose(bundle.full).graph.node}
    assert "BatchNormalization" not in operators
    assert "Conv" in operators


def test_weights_survive_the_round_trip_through_safetensors(model: AnyDepthYolo, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "model.safetensors", RECIPE, CLASS_NAMES, 7)
    loaded = load_weights(tmp_path / "model.safetensors")
    assert loaded.recipe == RECIPE
    assert loaded.class_names == CLASS_NAMES
    assert loaded.iteration == 7
    assert loaded.provenance is None
    pairs = zip(model.state_dict().values(), loaded.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_file_of_other_weights_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(RecipeError, match="no weights file"):
        load_weights(path)
    assert main([str(path), str(tmp_path / "x.anydepth")]) == 1
    assert "model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "x.anydepth").exists()


def test_the_manifest_says_where_the_weights_came_from(bundle: Bundle) -> None:
    manifest = json.loads((Path(bundle.path) / "manifest.json").read_text())
    assert manifest["provenance"]["seed"] == 0
    assert manifest["stages"]["p4"] == {"essential": "p4.essential", "full": "p4.full"}


def test_the_model_card_gives_classes_origin_and_accuracy(bundle: Bundle) -> None:
    manifest = json.loads((Path(bundle.path) / "manifest.json").read_text())
    assert "Not measured." in model_card(manifest)
    manifest["accuracy"] = {"dataset": "val", "configurations": {"FFFF.FFFF": {"AP": 0.4, "AP50": 0.625}}}
    card = model_card(manifest)
    assert "Classes: a, b, c." in card
    assert "| seed | 0 |" in card
    assert "| FFFF.FFFF | 40.0 | 62.5 |" in card


def test_the_provenance_says_what_the_training_was(model: AnyDepthYolo, tmp_path: Path) -> None:
    def provenance(**changes: object) -> dict[str, Any]:
        return provenance_of(Weights(model, dataclasses.replace(RECIPE, **changes), CLASS_NAMES, 7))  # type: ignore[arg-type]

    assert provenance()["training"] == "super-net and base-net on labels"
    distilled = provenance(distillation=DistillationSettings(), initial_weights="first.safetensors")
    assert distilled["training"] == "super-net and base-net on labels and self-distillation"
    assert distilled["started_from"] == "first.safetensors"
    assert provenance(any_depth=False)["training"] == "super-net on labels"
    own = provenance(coco=CocoSettings(annotations="somewhere/own.json", folder="images"))
    assert (own["dataset"], own["recipe"]) == ("own.json", f"yolo-t, 7 iterations of {RECIPE.batch_size} images")


def test_the_model_card_of_own_data_speaks_of_no_aisles(bundle: Bundle) -> None:
    manifest = json.loads((Path(bundle.path) / "manifest.json").read_text())
    manifest["provenance"] = {"dataset": AISLE_DATASET, "iterations": 7}
    assert "warehouse aisles" in model_card(manifest)
    manifest["provenance"] = {"dataset": "own.json", "iterations": 7}
    card = model_card(manifest)
    assert "warehouse" not in card
    assert "converted" not in card


def test_the_command_exports_at_the_size_it_is_asked_for(model: AnyDepthYolo, tmp_path: Path) -> None:
    weights, path = tmp_path / "model.safetensors", tmp_path / "small.anydepth"
    save_weights(model, weights, RECIPE, CLASS_NAMES, 7)
    assert main([str(weights), str(path), "--image-size", "64", "96"]) == 0
    assert Bundle.load(path).manifest.input.height == 64
    assert Bundle.load(path).manifest.input.width == 96
    assert main([str(weights), str(path), "--image-size", "60", "96"]) == 1


def test_the_command_stores_references_that_the_engines_meet(model: AnyDepthYolo, tmp_path: Path) -> None:
    weights, path = tmp_path / "model.safetensors", tmp_path / "small.anydepth"
    save_weights(model, weights, RECIPE, CLASS_NAMES, 7)
    assert main([str(weights), str(path), "--image-size", "64", "96"]) == 0
    exported = Bundle.load(path)
    reference = exported.read_reference()
    assert reference is not None
    assert set(reference.rows) == set(reference_configs(exported))
    Execution(exported, create_backend("onnxruntime", threads=1)).ensure(exported.full)


def made_up_accuracy(bundle: Bundle) -> dict[str, Any]:
    """AP by which a quarter of the configurations are worth their cost, and GFLOPs alone would choose others."""
    shallow = [config for config in bundle.space.all() if config.full_paths[2:] == bundle.base.full_paths[2:]]
    configs = dict.fromkeys([*shallow, bundle.full])
    entries = {str(config): {"AP": 0.4 + 0.01 * index, "AP50": 0.6, "measured": True}
               for index, config in enumerate(configs)}
    return {"dataset": "made up", "metric": "AP", "configurations": entries}


def test_an_export_that_measures_has_references_of_the_ladder_that_follows(model: AnyDepthYolo, tmp_path: Path) -> None:
    weights = Weights(model, RECIPE, CLASS_NAMES, 7)
    plain = export_bundle(weights, tmp_path / "plain.anydepth", image_size=(64, 64))
    exported = export_bundle(weights, tmp_path / "a.anydepth", image_size=(64, 64), measure=made_up_accuracy)
    assert exported.default_configs() != plain.default_configs()
    reference = exported.read_reference()
    assert reference is not None
    assert set(reference.rows) == set(reference_configs(exported))
    assert "made up" in (exported.path / "MODEL_CARD.md").read_text()


def test_measuring_on_scenes_whose_classes_the_network_does_not_know_is_refused(
    model: AnyDepthYolo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, path = tmp_path / "model.safetensors", tmp_path / "small.anydepth"
    save_weights(model, weights, RECIPE, CLASS_NAMES, 7)
    assert main([str(weights), str(path), "--measure", "2"]) == 1
    assert "the network knows a, b, c; aisle scenes have" in capsys.readouterr().err
    assert not path.exists()


def test_the_command_writes_references_alone_and_leaves_the_rest(
    model: AnyDepthYolo, bundle: Bundle, tmp_path: Path
) -> None:
    weights = tmp_path / "model.safetensors"
    save_weights(model, weights, RECIPE, CLASS_NAMES, 7)
    path = Path(shutil.copytree(bundle.path, tmp_path / "random.anydepth"))
    before = Bundle.load(path)
    assert before.read_reference() is None
    assert main([str(weights), str(path), "--references-only"]) == 0
    after = Bundle.load(path)
    assert after.read_reference() is not None
    assert after.manifest.segments == before.manifest.segments
    assert after.manifest.provenance == before.manifest.provenance


def test_references_of_other_weights_are_noticed(bundle: Bundle, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = build_model("yolo-t", len(CLASS_NAMES)).eval()
    randomise(other)
    path = Path(shutil.copytree(bundle.path, tmp_path / "random.anydepth"))
    rewrite_bundle(Bundle.load(path), reference=reference_in_torch(other, bundle, reference_image(bundle)))
    with pytest.raises(SelfCheckError):
        Execution(Bundle.load(path), create_backend("onnxruntime", threads=1)).ensure(bundle.full)

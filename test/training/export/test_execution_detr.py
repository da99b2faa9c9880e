"""Staged execution of AnyDepth-DETR: the numbers of whole execution at every exit, decided as late as the decoder."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from spaces import STAGES, with_exits

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, write_bundle
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.execution import Execution
from training.export.manifest import manifest_of
from training.export.segments import export_segments
from training.families import build_model
from training.recipes.recipe import Recipe

NUM_EXITS = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    model = build_model("detr-r18", 2).eval()
    for head in model.decoder.box:  # box heads that move, so that exits differ
        torch.nn.init.normal_(head.layers[-1].weight, std=0.2)
    recipe = Recipe(model="detr-r18", image_size=(128, 160))
    models, gflops = export_segments(model, recipe.image_size)
    path = tmp_path_factory.mktemp("bundles") / "random-detr.anydepth"
    return write_bundle(path, manifest_of("random-detr", model, recipe, ["a", "b"], gflops, {"seed": 0}), models)


@pytest.fixture(scope="module")
def executions(bundle: Bundle) -> tuple[Execution, Execution]:
    backend = create_backend("onnxruntime", threads=1)
    both = Execution(bundle, backend), Execution(bundle, backend, bundle.space.default_points)
    for execution in both:
        image = execution.image
        image[:] = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    return both


def configurations() -> list[DepthConfig]:
    picks = random.Random(3)
    mixtures = [DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES), 1 + i % NUM_EXITS) for i in range(10)]
    return [with_exits(NUM_EXITS).full, with_exits(NUM_EXITS).base, *mixtures]


def outputs(execution: Execution, config: DepthConfig) -> np.ndarray:
    execution.run(config)
    return np.concatenate([execution.boxes, execution.logits], axis=2)


@pytest.mark.parametrize("config", configurations(), ids=str)
def test_staged_and_whole_put_out_the_same(
    executions: tuple[Execution, Execution], config: DepthConfig
) -> None:
    whole, staged = executions
    whole.ensure(config)
    np.testing.assert_allclose(outputs(staged, config), outputs(whole, config), atol=1e-5)


def test_exits_put_out_different_boxes(executions: tuple[Execution, Execution]) -> None:
    first, last = (outputs(executions[1], DepthConfig((True,) * 8, exit_index)) for exit_index in (1, NUM_EXITS))
    assert np.abs(first - last).max() > 0.01


def test_the_exit_can_be_chosen_when_only_the_decoder_is_left(
    executions: tuple[Execution, Execution], bundle: Bundle
) -> None:
    _, staged = executions
    early = DepthConfig(bundle.full.full_paths, 1)
    expected = outputs(staged, early)
    executed = staged.run(bundle.full, lambda point, _: early if point == "exits" else bundle.full)
    assert executed.config == early
    np.testing.assert_array_equal(np.concatenate([staged.boxes, staged.logits], axis=2), expected)


def test_weights_are_in_memory_once(bundle: Bundle) -> None:
    backend = create_backend("onnxruntime", threads=1)
    whole = Execution(bundle, backend)
    whole.ensure(bundle.full)
    one = backend.weight_bytes
    for exit_index in (1, 2):
        whole.ensure(DepthConfig(bundle.full.full_paths, exit_index))
    assert backend.weight_bytes < 1.01 * one

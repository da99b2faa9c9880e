"""The trainer: two passes, exact resume, moving average, refusal of another run's checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from random_weights import randomise
from spaces import STAGES

from training.analysis.cka import essential_steps
from training.data.annotated import Sample, SampleError, fit, mirror
from training.data.batches import collate, training_batches
from training.data.scenes import TrainingScenes, annotated
from training.data.settings import SceneSettings
from training.loop.checkpoint import load_checkpoint, save_checkpoint
from training.loop.ema import ModelEma
from training.loop.optimizer import learning_rate, make_optimizer
from training.loop.run_log import append_row, drop_rows_after
from training.loop.trainer import Trainer
from training.recipes.recipe import OptimizerSettings, Recipe, RecipeError
from training.recipes.weights import save_weights, start_from
from training.train import main

RECIPE = Recipe(
    model="yolo-t",
    image_size=(64, 64),
    iterations=4,
    batch_size=2,
    validation_images=2,
    validate_every=4,
    checkpoint_every=2,
    workers=0,
    data=SceneSettings(frame_sizes=((64, 64), (64, 48)), frame_weights=(0.5, 0.5)),
)


def train(folder: Path, iterations: int, trainer: Trainer | None = None) -> Trainer:
    trainer = trainer or Trainer(RECIPE, folder)
    for images, targets in training_batches(RECIPE.samples, trainer.iteration):
        trainer.step(images, targets)
        if trainer.iteration == iterations:
            break
    return trainer


def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    straight = train(tmp_path, 4)
    first = train(tmp_path, 2)
    save_checkpoint(first.checkpoint_path, first.state())
    torch.manual_seed(99)
    second = Trainer(RECIPE, tmp_path)
    second.restore(load_checkpoint(second.checkpoint_path))
    train(tmp_path, 4, second)
    for ours, theirs in ((straight.model, second.model), (straight.ema.model, second.ema.model)):
        for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_a_run_starts_from_initial_weights_and_says_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "of_four_classes.safetensors"
    given = RECIPE.build_model(4)
    save_weights(given, path, RECIPE, list("abcd"), 0)

    trainer = Trainer(dataclasses.replace(RECIPE, initial_weights=str(path)), tmp_path)

    assert trainer.random_tensors == [f"head.cls.{i}.4.{x}" for i in range(3) for x in ("bias", "weight")]
    ours = trainer.model.state_dict()
    for name, tensor in given.state_dict().items():
        assert name in trainer.random_tensors or torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("dedicated", [True, False])
@pytest.mark.parametrize("model", ["yolo-t", "detr-r18"])
def test_an_any_depth_run_starts_from_a_plain_network(model: str, dedicated: bool, tmp_path: Path) -> None:
    plain = Recipe(model=model, image_size=(64, 64), any_depth=False, fine=False)
    weights, path = plain.build_model(3).eval(), tmp_path / "plain.safetensors"
    randomise(weights)
    save_weights(weights, path, plain, list("abc"), 0)
    recipe = Recipe(model=model, image_size=(64, 64), dedicated_aggregators=dedicated)
    any_depth = recipe.build_model(3).eval()

    left = start_from(any_depth, path)

    assert left
    assert all(".fine." in name or ".high_projection." in name for name in left)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours = any_depth.features(images, any_depth.space.full)
        theirs = weights.features(images, weights.space.full)
        for stage in STAGES:
            assert torch.equal(ours[stage], theirs[stage]), stage  # FINE starts as the identity
        essential = any_depth.features(images, any_depth.space.base)
        split = weights.features_of(images, essential_steps(weights))
        for stage in STAGES:
            torch.testing.assert_close(essential[stage], split[stage])

    back = plain.build_model(3).eval()
    save_weights(any_depth, path, recipe, list("abc"), 0)
    assert start_from(back, path) == []
    for name, tensor in weights.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


def test_initial_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    other = dataclasses.replace(RECIPE, model="yolo-n")
    save_weights(other.build_model(6), path, other, list("abcdef"), 0)
    with pytest.raises(RecipeError, match=r"another network: only [0-9]+ of [0-9]+ tensors fit"):
        Trainer(dataclasses.replace(RECIPE, initial_weights=str(path)), tmp_path)


def test_a_step_trains_both_paths(tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    log = train(tmp_path, 1, trainer)
    for name, parameter in log.model.named_parameters():
        if ".norm.full.bias" in name or ".norm.essential.bias" in name:
            assert not torch.equal(parameter, before[name]), name


def test_the_base_pass_joins_at_its_iteration(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, base_from=2)
    trainer = Trainer(recipe, tmp_path)
    batch = next(training_batches(recipe.samples, 0))
    passes = [{key.partition("_")[0] for key in trainer.step(*batch)} & {"super", "base"} for _ in range(4)]
    assert passes == [{"super"}, {"super"}, {"super", "base"}, {"super", "base"}]


def test_a_column_that_joins_later_is_empty_before(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append_row(path, {"iteration": 1, "super": 0.5})
    append_row(path, {"iteration": 2, "super": 0.4, "base": 0.7})
    append_row(path, {"iteration": 3, "base": 0.6})
    assert path.read_text().split() == ["iteration,super,base", "1,0.5,", "2,0.4,0.7", "3,,0.6"]


def test_a_static_run_has_no_base_pass(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, any_depth=False)
    trainer = Trainer(recipe, tmp_path)
    log = trainer.step(*next(training_batches(recipe.samples, 0)))
    assert "super_box" in log
    assert not any(key.startswith("base") for key in log)


def test_a_scene_that_cannot_be_rendered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("somewhere")

    monkeypatch.setattr("training.data.scenes.render_image", fails)
    with pytest.raises(SampleError, match="training scene 5: ZeroDivisionError: somewhere"):
        TrainingScenes(RECIPE.samples)[5]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, tmp_path)
    other = Trainer(dataclasses.replace(RECIPE, batch_size=3), tmp_path)
    with pytest.raises(RecipeError, match=r"batch_size=2, the recipe says 3"):
        other.restore(trainer.state())


def test_the_command_trains_logs_and_writes_weights(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "model: yolo-t\nimage_size: [64, 64]\niterations: 2\nbatch_size: 2\nworkers: 1\n"
        "validate_every: 2\nvalidation_images: 2\ndata: {frame_sizes: [[64, 64]], frame_weights: [1]}\n"
    )
    assert main([str(recipe), "--output", str(tmp_path / "run")]) == 0
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 3
    assert "super_AP" in (tmp_path / "run" / "validation.csv").read_text()
    assert (tmp_path / "run" / "model.safetensors").stat().st_size > 1_000_000


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, tmp_path)
    images, targets = next(training_batches(RECIPE.samples, 0))
    with pytest.raises(FloatingPointError, match="super-net's loss is nan at iteration 0"):
        trainer.step(images * float("nan"), targets)


def test_learning_rate_warms_up_and_falls_to_its_final_fraction() -> None:
    settings = OptimizerSettings(learning_rate=1.0, warmup_iterations=10, final_fraction=0.1)
    rates = [learning_rate(settings, i, 100) for i in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_a_linear_schedule_falls_evenly_and_a_constant_one_not_at_all() -> None:
    linear, constant = (
        [
            learning_rate(OptimizerSettings(schedule=schedule, warmup_iterations=0, final_fraction=0.0), i, 4)
            for i in range(4)
        ]
        for schedule in ("linear", "constant")
    )
    assert linear == pytest.approx([2e-3, 1.5e-3, 1e-3, 0.5e-3])
    assert constant == [2e-3] * 4


def test_sgd_moves_by_nesterovs_momentum() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(layer.weight)
    settings = OptimizerSettings(kind="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.0)
    optimizer = make_optimizer(layer, settings)
    for _ in range(2):
        layer.weight.grad = torch.ones(1, 1)
        optimizer.step()
    # Velocities 1 and 1.5; each step goes on by the gradient plus half the velocity.
    assert layer.weight.item() == pytest.approx(1 - 0.1 * (1 + 0.5 * 1) - 0.1 * (1 + 0.5 * 1.5))


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'adam'; it must be one of adamw, sgd"):
        OptimizerSettings(kind="adam")


def test_the_backbone_learns_at_its_share_of_the_rate_and_no_vector_decays(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=OptimizerSettings(backbone_rate=0.1, weight_decay=0.5))
    trainer = Trainer(recipe, tmp_path)
    trainer.step(*next(training_batches(recipe.samples, 0)))
    groups = {id(p): group for group in trainer.optimizer.param_groups for p in group["params"]}
    parameters = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert len(groups) == len(parameters)
    head, stem = (groups[id(parameters[name])] for name in ("head.cls.0.4.weight", "stem.conv1.conv.weight"))
    assert stem["lr"] == pytest.approx(0.1 * head["lr"])
    assert all((groups[id(p)]["weight_decay"] == 0.5) == (p.ndim > 1) for p in parameters.values())


def test_a_detr_trains_by_the_same_command(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "model: detr-r18\nimage_size: [64, 64]\niterations: 1\nbatch_size: 1\nworkers: 0\n"
        "distillation: {}\nloss: {base_weight: 0.0}\nvalidate_every: 1\nvalidation_images: 1\n"
        "data: {frame_sizes: [[64, 64]], frame_weights: [1]}\n"
    )
    assert main([str(recipe), "--output", str(tmp_path / "run")]) == 0
    header, row = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert {"super_denoising_giou", "base_kd_class"} <= set(header.split(","))
    assert "nan" not in row


def test_the_moving_average_is_between_the_weights_it_saw() -> None:
    layer = torch.nn.Linear(2, 1)
    torch.nn.init.zeros_(layer.weight)
    ema = ModelEma(layer, decay=0.9, warmup=1)
    torch.nn.init.ones_(layer.weight)
    ema.update(layer)
    decay = 0.9 * (1 - torch.tensor(-1.0).exp())
    assert torch.allclose(ema.model.weight, (1 - decay).expand(1, 2))


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("iteration,loss\n1,5\n2,4\n3,3\n")
    drop_rows_after(path, 2)
    assert path.read_text() == "iteration,loss\n1,5\n2,4\n"


@pytest.mark.parametrize("content", ["", "iterat", "iteration,loss\n3,3\n"])
def test_a_log_with_no_row_to_keep_starts_anew(content: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(content)
    drop_rows_after(path, 2)
    assert not path.exists()


def test_a_batch_is_the_same_every_time_and_another_for_another_seed() -> None:
    first, again = (next(training_batches(RECIPE.samples, 1)) for _ in range(2))
    other = next(training_batches(dataclasses.replace(RECIPE.samples, seed=1), 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1].boxes, again[1].boxes)
    assert not torch.equal(first[0], other[0])


def test_a_mirrored_image_is_its_own_mirror_image_twice() -> None:
    from training.data.aisle import render_image

    fitted = fit(annotated(render_image("train", 3, (128, 96))), (128, 128))
    twice = mirror(mirror(fitted))
    assert np.array_equal(fitted.image, twice.image)
    assert np.array_equal(fitted.boxes, twice.boxes)
    mirrored = mirror(fitted)
    assert np.array_equal(mirrored.image[:, 0], fitted.image[:, -1])
    assert np.array_equal(mirrored.boxes[:, 0], 128 - fitted.boxes[:, 2])


def test_collate_pads_to_the_most_objects() -> None:
    def sample(count: int) -> Sample:
        image = torch.zeros(3, 4, 4, dtype=torch.uint8)
        return Sample(image, torch.ones(count, 4), torch.ones(count).long(), torch.ones(1, 4))

    images, targets = collate([sample(0), sample(2)])
    assert images.shape == (2, 3, 4, 4)
    assert targets.valid.tolist() == [[False, False], [True, True]]
    assert targets.masks is None


def test_masks_are_padded_where_every_sample_has_them() -> None:
    def sample(count: int) -> Sample:
        image, masks = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.ones(count, 4, 4, dtype=torch.bool)
        return Sample(image, torch.ones(count, 4), torch.ones(count).long(), torch.ones(1, 4), masks)

    _, targets = collate([sample(1), sample(2)])
    assert targets.masks is not None
    assert targets.masks.flatten(2).all(dim=2).tolist() == [[True, False], [True, True]]
    assert [part.masks.shape for part in targets.chunk(2) if part.masks is not None] == [(1, 2, 4, 4)] * 2

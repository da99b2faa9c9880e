"""The two passes of a training step: what each of them reaches, and the switches of the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from training.loop.trainer import Trainer
from training.losses.distillation import YOLO_DISTILLATION, DistillationSettings
from training.models.batchnorm import SwitchableBatchNorm2d
from training.models.stage import Aggregator, SplitBlocks
from training.models.targets import Targets, pad_targets
from training.recipes.recipe import LossSettings, Recipe, RecipeError

SMALL = {"image_size": (64, 96), "iterations": 2, "batch_size": 2, "workers": 0}
RECIPES = {
    "yolo": Recipe("yolo-t", distillation=YOLO_DISTILLATION, **SMALL),
    "detr": Recipe("detr-r18", distillation=DistillationSettings(), **SMALL),
}


def batch() -> tuple[torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 64, 96, generator=generator)
    boxes = [torch.tensor([[4.0, 6, 40, 50], [50, 10, 90, 60]]), torch.tensor([[20.0, 20, 70, 44]])]
    return images, pad_targets(boxes, [torch.tensor([0, 2]), torch.tensor([1])], [torch.zeros(0, 4)] * 2)


def trainer(recipe: Recipe, folder: Path) -> Trainer:
    made = Trainer(recipe, folder)
    made.model.train()
    return made


def refinement_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The blocks that only the full path runs."""
    for name, module in model.named_modules():
        if isinstance(module, SplitBlocks):
            for index, block in enumerate(module.refinement, module.num_essential):
                yield f"{name}.{index}", block


def statistics(model: nn.Module, path: str) -> dict[str, torch.Tensor]:
    """Running means and counts of the switchable norms' halves of one path."""
    return {
        f"{name}.{key}": value.clone()
        for name, module in model.named_modules()
        if isinstance(module, SwitchableBatchNorm2d)
        for key, value in module.select(path).state_dict().items()
        if key.startswith("running") or key == "num_batches_tracked"
    }


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("family", RECIPES)
def test_the_base_pass_reaches_no_refinement_and_no_full_statistics(family: str, tmp_path: Path) -> None:
    run = trainer(RECIPES[family], tmp_path)
    images, targets = batch()
    teacher = run._super_pass(images, targets, {})
    run.optimizer.zero_grad(set_to_none=True)
    full, essential = statistics(run.model, "full"), statistics(run.model, "essential")

    run._base_pass(images, targets, teacher, {})

    blocks = dict(refinement_blocks(run.model))
    assert len(blocks) >= 8
    for name, block in blocks.items():
        assert all(p.grad is None for p in block.parameters()), name
    for name, module in run.model.named_modules():
        if isinstance(module, SwitchableBatchNorm2d):
            assert module.full.weight.grad is None, name
            assert module.essential.weight.grad is not None, name
        if isinstance(module, Aggregator) and module.essential is None and module.full.conv.weight.grad is not None:
            columns = module.full.conv.weight.grad[:, module.essential_channels :]
            assert not columns.any(), name
    assert equal(full, statistics(run.model, "full"))
    assert not equal(essential, statistics(run.model, "essential"))


@pytest.mark.parametrize("family", RECIPES)
def test_the_super_pass_reaches_no_essential_norm(family: str, tmp_path: Path) -> None:
    run = trainer(RECIPES[family], tmp_path)
    essential, full = statistics(run.model, "essential"), statistics(run.model, "full")

    run._super_pass(*batch(), {})

    assert equal(essential, statistics(run.model, "essential"))
    assert not equal(full, statistics(run.model, "full"))
    for name, module in run.model.named_modules():
        if isinstance(module, SwitchableBatchNorm2d):
            assert module.essential.weight.grad is None, name


@pytest.mark.parametrize("family", RECIPES)
def test_a_step_logs_every_term_of_both_passes(family: str, tmp_path: Path) -> None:
    log = trainer(RECIPES[family], tmp_path).step(*batch())
    distilled = {"base_kd_class", "base_kd_box", "base_kd_edge", "base_kd_feature"}
    assert distilled <= set(log)
    assert {name for name in log if name.startswith("super_kd")} == set()


@pytest.mark.parametrize("family", RECIPES)
def test_without_labels_the_base_pass_is_distillation_alone(family: str, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES[family], loss=LossSettings(base_weight=0.0))
    log = trainer(recipe, tmp_path).step(*batch())
    base = {name for name in log if name.startswith("base_")}
    assert base == {"base_kd_class", "base_kd_box", "base_kd_edge", "base_kd_feature"}


def test_weights_scale_the_terms_of_the_base_pass(tmp_path: Path) -> None:
    joint = trainer(RECIPES["yolo"], tmp_path).step(*batch())
    paper = dataclasses.replace(RECIPES["yolo"], loss=LossSettings(base_weight=0.2, distillation_weight=0.8))
    weighted = trainer(paper, tmp_path).step(*batch())
    assert weighted["base_box"] == pytest.approx(0.2 * joint["base_box"], rel=1e-4)
    assert weighted["base_kd_feature"] == pytest.approx(0.8 * joint["base_kd_feature"], rel=1e-4)


def test_the_naive_joint_network_shares_norms_and_aggregators_and_has_both_depths(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPES["yolo"], switch_norms=False, dedicated_aggregators=False, distillation=None
    )
    run = trainer(recipe, tmp_path)
    assert not any(isinstance(module, SwitchableBatchNorm2d) for module in run.model.modules())
    assert all(module.essential is None for module in run.model.modules() if isinstance(module, Aggregator))
    log = run.step(*batch())
    assert "base_box" in log and "base_kd_class" not in log


def test_sliced_aggregators_keep_a_norm_of_their_own(tmp_path: Path) -> None:
    run = trainer(dataclasses.replace(RECIPES["yolo"], dedicated_aggregators=False), tmp_path)
    run.step(*batch())
    aggregators = [m for m in run.model.modules() if isinstance(m, Aggregator) and m.essential_channels]
    norms = [m.full.norm for m in aggregators]
    assert len(norms) == 8
    assert all(isinstance(norm, SwitchableBatchNorm2d) for norm in norms)


def test_the_base_pass_alone_trains_a_plain_network_of_the_base_nets_depth(tmp_path: Path) -> None:
    run = trainer(dataclasses.replace(RECIPES["yolo"], passes=("base",), distillation=None), tmp_path)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    log = run.step(*batch())
    assert not any(name.startswith("super") for name in log)
    changed = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    for name, _ in refinement_blocks(run.model):
        assert not any(parameter.startswith(f"{name}.") for parameter in changed), name
    assert "head.cls.0.4.weight" in changed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"passes": ("both",)}, r"passes is \['both'\]; it must be \[super, base\]"),
        ({"passes": ("base",), "any_depth": False}, "such a network has no base-net"),
        ({"passes": ("super",)}, "distillation needs both passes, but the recipe runs super alone"),
        ({"any_depth": False}, "distillation needs both passes"),
        ({"any_depth": False, "distillation": None, "base_from": 2}, "base_from is 2, but the recipe does not"),
        ({"iterations": 4, "base_from": 4}, "base_from is 4; it must be within the 4 iterations"),
    ],
)
def test_passes_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(RECIPES["yolo"], **settings)

"""Recipes: every shipped one loads; wrong keys and types are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.losses.distillation import YOLO_DISTILLATION, DistillationSettings
from training.models.fine import FineSettings
from training.recipes.recipe import RECIPES, RecipeError, load_recipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    assert load_recipe(path.stem) == load_recipe(str(path))


@pytest.mark.parametrize("name", ["detr-r18", "detr-r34", "detr-r50", "detr-r101", "yolo-l", "yolo-x"])
def test_the_papers_recipes_run_its_epochs_of_coco_with_table_5s_weights(name: str) -> None:
    recipe = load_recipe(name)
    family = name.partition("-")[0]
    epochs = {"detr": 72, "yolo": 600}[family]
    assert recipe.iterations == pytest.approx(epochs * 118_287 / recipe.batch_size, rel=1e-3)
    assert recipe.distillation == {"detr": DistillationSettings(), "yolo": YOLO_DISTILLATION}[family]
    assert recipe.coco is not None


def test_overrides_reach_nested_keys() -> None:
    recipe = load_recipe("aisle-yolo-t", ("optimizer.learning_rate=0.5", "seed=3"))
    assert recipe.optimizer.learning_rate == 0.5
    assert recipe.seed == 3


@pytest.mark.parametrize(
    ("override", "setting"),
    [
        ("attention=window", {"attention": "window"}),
        ("modulation=none", {"modulation": "none"}),
        ("downsample=depthwise", {"downsample": "depthwise"}),
        ("pools=[2, 4]", {"pools": (2, 4)}),
        ("num_heads=4", {"num_heads": 4}),
        ("num_heads=null", {"num_heads": None}),
        ("ffn_ratio=0", {"ffn_ratio": 0.0}),
        ("stride_ratio=1", {"stride_ratio": 1}),
        ("window_size=8", {"window_size": 8}),
        ("area=2", {"area": 2}),
    ],
)
def test_a_recipe_chooses_the_kind_of_fine(override: str, setting: dict[str, object]) -> None:
    recipe = load_recipe("aisle-yolo-t", (f"fine_settings.{override}",))
    assert recipe.fine_settings == FineSettings(**setting)


def test_the_kind_of_fine_reaches_both_fusions() -> None:
    recipe = load_recipe("aisle-yolo-t", ("fine_settings.attention=area", "fine_settings.stride_ratio=1"))
    stages = recipe.build_model(6).stages
    assert {stages[name].fine.settings for name in ("fpn_p4", "fpn_p3")} == {recipe.fine_settings}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("colour=red", "unknown key 'colour'"),
        ("optimizer.lr=1", "optimizer: unknown key 'lr'"),
        ("seed=many", "seed must be of type int, got 'many'"),
        ("fine=1", "fine must be of type bool, got 1"),
        ("image_size=[320]", "image_size must have 2 entries"),
        ("image_size=[320, 300]", "multiples of 32"),
        ("iterations=0", "iterations is 0"),
        ("data.frame_weights=[1]", "equal length"),
        ("seed", "not of the form key=value"),
        ("seed.value=1", "seed is 0, which has no keys of its own"),
        ("fine_settings.heads=4", "fine_settings: unknown key 'heads'"),
        ("fine_settings.attention=sparse", "fine_settings: attention is 'sparse'; accepted are aats, vanilla"),
        ("fine_settings.attention=7", "fine_settings: attention must be of type str, got 7"),
        ("fine_settings.pools=[1, 0]", "fine_settings: pools has 0"),
        ("fine_settings.num_heads=many", "fine_settings: num_heads must be of type int, got 'many'"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        load_recipe("aisle-yolo-t", (override,))


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'nope'.*aisle-yolo-t"):
        load_recipe("nope")


def test_a_recipe_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model: [yolo-t")
    with pytest.raises(RecipeError, match=r"broken\.yaml: not valid YAML"):
        load_recipe(str(path))

"""Recipes: every shipped one loads; wrong keys and types are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.recipe import RECIPES, RecipeError, load_recipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    assert load_recipe(path.stem) == load_recipe(str(path))


def test_overrides_reach_nested_keys() -> None:
    recipe = load_recipe("aisle-yolo-t", ("optimizer.learning_rate=0.5", "seed=3"))
    assert recipe.optimizer.learning_rate == 0.5
    assert recipe.seed == 3


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

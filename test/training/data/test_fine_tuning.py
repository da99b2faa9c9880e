"""The recipe that needs no number: the input's size follows the objects, the schedule follows the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.fine_tuning import Machine, fine_tuning_recipe, input_size
from training.data.labels import Label, Picture
from training.recipes.recipe import Recipe, from_dict

TWO_CORES, GPU = Machine(2, gpu=False), Machine(16, gpu=True)


def pictures(count: int, side: float, size: tuple[int, int] = (640, 480)) -> list[Picture]:
    label = Label("thing", (0, 0, side, side))
    return [Picture(Path(f"{index}.jpg"), *size, [label]) for index in range(count)]


@pytest.mark.parametrize(
    ("side", "size", "machine", "expected"),
    [
        (40, (640, 480), TWO_CORES, (288, 384)),
        (20, (640, 480), TWO_CORES, (384, 512)),
        (5, (640, 480), TWO_CORES, (480, 640)),
        (200, (480, 640), TWO_CORES, (384, 288)),
        (16, (1920, 1080), GPU, (544, 960)),
        (200, (4000, 400), TWO_CORES, (192, 384)),
    ],
)
def test_the_input_is_as_small_as_small_objects_allow(
    side: float, size: tuple[int, int], machine: Machine, expected: tuple[int, int]
) -> None:
    assert input_size(pictures(10, side, size), machine) == expected


@pytest.mark.parametrize("count", [1, 20, 300, 100_000])
@pytest.mark.parametrize("machine", [TWO_CORES, GPU])
def test_every_recipe_is_one_that_can_be_run(count: int, machine: Machine) -> None:
    recipe = fine_tuning_recipe(pictures(count, 30), [], machine, None)
    recipe["coco"] |= {"annotations": "a.json", "folder": "a"}
    checked: Recipe = from_dict(Recipe, recipe, "recipe")
    assert 200 <= checked.iterations <= 30_000
    assert checked.mixed_precision == machine.gpu


def test_a_run_on_two_cores_ends_within_its_budget_at_the_counted_rate() -> None:
    recipe = fine_tuning_recipe(pictures(300, 40), [], TWO_CORES, Path("aisle.safetensors"))
    height, width = recipe["image_size"]
    pixels = recipe["iterations"] * recipe["batch_size"] * height * width
    assert 0.99 * 14 * 60 < pixels / (2 * 0.45e6) <= 14 * 60
    assert recipe["initial_weights"] == "aisle.safetensors"


def test_twice_the_cores_train_twice_as_long_and_few_pictures_not_for_ever() -> None:
    few, many = pictures(20, 40), pictures(5000, 40)
    four = Machine(4, gpu=False)
    counts = [fine_tuning_recipe(many, [], machine, None)["iterations"] for machine in (TWO_CORES, four)]
    assert counts[1] == pytest.approx(2 * counts[0], abs=1)
    assert fine_tuning_recipe(few, [], Machine(64, gpu=False), None)["iterations"] == 300 * 20 // 8

"""Training samples of images with boxes: each image once an epoch, the same whoever makes them, broken ones named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folder import box, write_folder

from training.data.annotated import Sample, SampleError
from training.data.batches import training_batches, training_data
from training.data.images import TrainingImages
from training.data.pictures import ImageReadError
from training.data.processes import Processes
from training.data.settings import CocoSettings, DetrAugmentation, YoloAugmentation
from training.recipes.recipe import Recipe, RecipeError, load_recipe
from training.recipes.weights import load_weights
from training.train import main

COUNT = 5
YOLO = YoloAugmentation(plain_epochs=1)
DETR = DetrAugmentation(sides=(64, 96, 128), plain_epochs=1)


def recipe_of(folder: Path, **coco: Any) -> Recipe:
    """A run of 8 batches of 4 over 5 images: 6.4 epochs."""
    annotations = [box(11 + index, [2 + index, 3, 20, 15], category=1 + 6 * (index % 2)) for index in range(COUNT - 1)]
    path = write_folder(folder, annotations, sizes=((40, 30), (30, 40), (50, 50), (60, 40), (40, 40)), suffix=".jpg")
    settings = CocoSettings(annotations=str(path), folder=str(folder), **coco)
    return Recipe(model="yolo-t", image_size=(64, 64), iterations=8, batch_size=4, workers=0, coco=settings)


def images_of(recipe: Recipe) -> TrainingImages:
    data = training_data(recipe.samples)
    assert isinstance(data, TrainingImages)
    return data


def tensors_of(sample: Sample) -> list[torch.Tensor]:
    return [sample.image, sample.boxes, sample.labels, sample.ignored]


def test_every_epoch_has_each_image_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    data = images_of(recipe_of(tmp_path))
    orders = [[data.image_at(COUNT * epoch + place) for place in range(COUNT)] for epoch in range(6)]
    assert all(sorted(order) == [*range(COUNT)] for order in orders)
    assert len({*map(tuple, orders)}) > 1


def test_another_seed_gives_another_order_and_other_samples(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, yolo=YOLO)
    ours, theirs = images_of(recipe), images_of(dataclasses.replace(recipe, seed=1))
    assert [ours.image_at(i) for i in range(25)] != [theirs.image_at(i) for i in range(25)]
    assert not torch.equal(ours[0].image, theirs[0].image)


@pytest.mark.parametrize("augmentation", [{"yolo": YOLO}, {"detr": DETR}, {}])
def test_a_sample_follows_from_its_position_alone(tmp_path: Path, augmentation: dict[str, Any]) -> None:
    recipe = recipe_of(tmp_path, **augmentation)
    straight, backwards = images_of(recipe), images_of(recipe)
    expected = [straight[i] for i in range(12)]
    for position in reversed(range(12)):
        for a, b in zip(tensors_of(expected[position]), tensors_of(backwards[position]), strict=True):
            assert torch.equal(a, b)


def test_an_image_looks_different_in_every_epoch(tmp_path: Path) -> None:
    data = images_of(recipe_of(tmp_path, yolo=YoloAugmentation(mosaic=0, mixup=0, plain_epochs=0)))
    first, second = (next(i for i in range(epoch * COUNT, 25) if data.image_at(i) == 0) for epoch in range(2))
    assert not torch.equal(data[first].image, data[second].image)


def test_a_resumed_run_gets_the_batches_that_an_uninterrupted_one_does(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, detr=DETR)
    straight = [*training_batches(recipe.samples, 0)]
    assert len(straight) == 8
    for (images, targets), (again, same) in zip(straight[5:], training_batches(recipe.samples, 5), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(targets.boxes, same.boxes)


def test_processes_share_a_batch_without_overlap(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, yolo=YOLO)
    whole = [images for images, _ in training_batches(recipe.samples, 0)]
    shares = [[images for images, _ in training_batches(recipe.samples, 0, Processes(rank, 2))] for rank in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch, torch.cat([first, second]))


def test_workers_give_the_batches_that_no_worker_gives(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, yolo=YOLO)
    alone = [*training_batches(recipe.samples, 6)]
    with_workers = [*training_batches(dataclasses.replace(recipe.samples, workers=2), 6)]
    for (images, targets), (theirs, same) in zip(alone, with_workers, strict=True):
        assert torch.equal(images, theirs)
        assert torch.equal(targets.boxes, same.boxes) and torch.equal(targets.labels, same.labels)


def test_a_worker_names_the_image_that_it_could_not_read(tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe_of(tmp_path), workers=1)
    (tmp_path / "2.jpg").write_bytes(b"broken")
    with pytest.raises(ImageReadError, match=r"2\.jpg: no image, or a damaged one .*skip_broken=true"):
        list(training_batches(recipe.samples, 0))


def test_any_other_failure_is_named_with_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images_of(recipe_of(tmp_path, yolo=YOLO))

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("somewhere")

    monkeypatch.setattr("training.data.images.augment_yolo", fail)
    with pytest.raises(SampleError, match=rf"{data.image_at(3)}\.jpg: ZeroDivisionError: somewhere"):
        data[3]


def test_a_broken_image_is_replaced_by_the_next_and_told_once_where_the_recipe_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recipe = recipe_of(tmp_path, skip_broken=True)
    whole = images_of(recipe)
    expected = {whole.image_at(i): whole[i] for i in range(COUNT)}
    (tmp_path / "4.jpg").write_bytes(b"broken")
    data = images_of(recipe)
    for position in range(2 * COUNT):
        index = data.image_at(position)
        assert torch.equal(data[position].image, expected[0 if index == 4 else index].image)
    assert capsys.readouterr().err.count("4.jpg: no image") == 1


def test_a_folder_of_broken_images_is_an_error_even_where_they_are_skipped(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, skip_broken=True)
    for index in range(COUNT):
        (tmp_path / f"{index}.jpg").write_bytes(b"broken")
    with pytest.raises(ImageReadError, match="nor can any other image be read"):
        images_of(recipe)[0]


def test_labels_are_class_indices_and_images_without_objects_take_part(tmp_path: Path) -> None:
    data = images_of(recipe_of(tmp_path))
    assert data.class_names == ("box", "ball")
    labels = {data.image_at(i): data[i].labels.tolist() for i in range(COUNT)}
    assert labels == {0: [0], 1: [1], 2: [0], 3: [1], 4: []}


def test_the_last_epochs_are_plain(tmp_path: Path) -> None:
    data = images_of(recipe_of(tmp_path, yolo=YOLO))
    plain = [data.is_plain(position, 1) for position in range(len(data))]
    assert plain == [False] * (32 - COUNT) + [True] * COUNT
    assert not any(data.is_plain(position, 0) for position in range(len(data)))


def test_the_images_of_a_batch_have_one_size_also_where_plain_epochs_begin(tmp_path: Path) -> None:
    batches = [images.shape[2:] for images, _ in training_batches(recipe_of(tmp_path, detr=DETR).samples, 0)]
    assert all(height == width for height, width in batches)
    assert len({*batches}) > 1
    assert batches[7] == (64, 64)


def test_targets_lie_in_the_drawn_size(tmp_path: Path) -> None:
    settings = DetrAugmentation(photometric=0, zoom_out=0, crop=0, flip=0, sides=(128,))
    data = images_of(dataclasses.replace(recipe_of(tmp_path, detr=settings), resize="stretch"))
    position = next(i for i in range(COUNT) if data.image_at(i) == 0)
    image, boxes = data[position].image, data[position].boxes
    assert image.shape == (3, 128, 128)
    assert boxes.numpy() == pytest.approx(np.array([[2, 3, 22, 18]]) * np.tile([128 / 40, 128 / 30], 2), abs=1e-3)


def test_a_recipe_names_its_data_and_augmentation(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("model: detr-r18\ncoco: {annotations: a.json, folder: b, detr: {crop: 0.5}}\n")
    coco = load_recipe(str(path), ("coco.detr.plain_epochs=2", "coco.skip_broken=true")).coco
    assert coco == CocoSettings("a.json", "b", skip_broken=True, detr=DetrAugmentation(crop=0.5, plain_epochs=2))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("coco: {annotations: a, folder: b, detr: {crop: 2}}", "crop is 2.0"),
        ("coco: {annotations: a, folder: b, detr: {mosaic: 1}}", "unknown key 'mosaic'"),
        ("coco: {annotations: a, folder: b, detr: {}, yolo: {}}", "detr and yolo are both given"),
        ("coco: {folder: b}", "annotations"),
        ("coco: {annotations: a, folder: b, validation_folder: c}", "belong together"),
        ("coco: {annotations: a, folder: b, detr: {}}\nimage_size: [320, 640]", "need a square image_size"),
    ],
)
def test_a_wrong_data_entry_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"model: yolo-t\n{text}\n")
    with pytest.raises(RecipeError, match=reason):
        load_recipe(str(path))


@pytest.mark.parametrize("validate", [True, False])
def test_the_command_trains_on_the_images_with_their_classes(tmp_path: Path, validate: bool) -> None:
    folder, output = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    coco = recipe_of(folder).coco
    assert coco is not None
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "model: yolo-t\nimage_size: [64, 64]\niterations: 2\nbatch_size: 2\nworkers: 0\nvalidate_every: 1\n"
        f"validation_images: 2\ncoco: {{annotations: {coco.annotations}, folder: {folder}, yolo: {{}}}}\n"
    )
    overrides = [f"coco.validation_annotations={coco.annotations}", f"coco.validation_folder={folder}"]
    options = [part for override in overrides for part in ("--set", override)] if validate else []
    assert main([str(recipe), "--output", str(output), "--device", "cpu", *options]) == 0
    assert load_weights(output / "model.safetensors").class_names == ["box", "ball"]
    assert (output / "validation.csv").exists() == validate


def test_the_command_says_what_is_wrong_with_the_annotations(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"model: yolo-t\ncoco: {{annotations: {tmp_path}/absent.json, folder: {tmp_path}}}\n")
    assert main([str(recipe), "--output", str(tmp_path / "run")]) == 1
    assert "absent.json: No such file" in capsys.readouterr().err

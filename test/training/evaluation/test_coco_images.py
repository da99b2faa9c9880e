"""Evaluation reads COCO's format by the reader that training uses, and checks the files before it starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_folder import box, write_folder

from training.evaluation.images import CocoImages, EvaluationDataError

NAMES = ("ball", "box")
Content = dict[str, Any]


def change(path: Path, edit: Callable[[Content], object]) -> Path:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c["annotations"][0].update(bbox=[]), "annotation 100: bbox is"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2]), "annotation 100: bbox is"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "annotation 100: bbox is"),
        (lambda c: c["annotations"][0].update(category_id=5), "annotation 100: there is no category 5"),
        (lambda c: c["images"][1].update(id=11), "image 11: two images have this id"),
        (lambda c: c["annotations"].append(dict(c["annotations"][0])), "annotation 100: 2 annotations have this id"),
        (lambda c: c["categories"][0].update(name="ball"), "name 'ball' is also that of category"),
        (lambda c: c["images"].clear(), "has no images"),
    ],
)
def test_what_training_refuses_evaluation_refuses(
    tmp_path: Path, edit: Callable[[Content], object], reason: str
) -> None:
    path = change(write_folder(tmp_path, [box(11, [1, 1, 2, 2])]), edit)
    with pytest.raises(EvaluationDataError, match=reason):
        CocoImages(path, tmp_path, NAMES)


def test_null_area_is_that_of_the_box_and_text_ids_are_read(tmp_path: Path) -> None:
    def edit(content: Content) -> None:
        content["images"][0]["id"] = content["annotations"][0]["image_id"] = "first"
        content["annotations"][0]["area"] = None

    images = CocoImages(change(write_folder(tmp_path, [box(11, [1, 1, 2, 3])]), edit), tmp_path, NAMES)
    truth = images.load(0)[1]
    assert (truth.areas.tolist(), truth.class_ids.tolist()) == ([6], [1])


def test_missing_images_are_told_before_anything_runs(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [])
    (tmp_path / "1.png").unlink()
    with pytest.raises(EvaluationDataError, match=r"1 of 2 images are not in .*: 1\.png; take them out"):
        CocoImages(path, tmp_path, NAMES)
    assert len(CocoImages(path, tmp_path, NAMES, count=1)) == 1


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [])
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(EvaluationDataError, match=r"0\.png: is 20x30 pixels, but .* says 40x30"):
        CocoImages(path, tmp_path, NAMES).load(0)


def test_all_categories_that_the_network_lacks_are_named_and_unused_ones_do_no_harm(tmp_path: Path) -> None:
    categories = ((1, "box"), (7, "ball"), (8, "cube"), (9, "cone"))
    path = write_folder(tmp_path, [box(11, [1, 1, 2, 2])], categories=categories)
    assert CocoImages(path, tmp_path, NAMES).load(0)[1].class_ids.tolist() == [1]
    used = [box(11, [1, 1, 2, 2], category=8), box(11, [1, 1, 2, 2], category=9)]
    path = write_folder(tmp_path, used, categories=categories)
    with pytest.raises(EvaluationDataError, match=r"categories 'cube', 'cone' are none of the network's: ball, box"):
        CocoImages(path, tmp_path, NAMES)

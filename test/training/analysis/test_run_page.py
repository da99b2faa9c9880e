"""The page about a run: depths from full to base, AP of each class, the pictures with the most mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anydepth_perception.detection.detector import Detections
from training.analyse import main
from training.analysis.run_page import class_metrics, depth_ladder, worst_images
from training.data.settings import CocoSettings
from training.evaluation.coco import ImageResult, Results
from training.evaluation.images import Truth
from training.families import build_model
from training.recipes.recipe import Recipe
from training.recipes.weights import save_weights

NAMES = ("cat <dog>", "bird", "fish")
BOX = [10.0, 10.0, 30.0, 30.0]


def truth(image_id: int, *class_ids: int) -> Truth:
    count = len(class_ids)
    boxes = np.array([BOX] * count, np.float64).reshape(-1, 4)
    areas = boxes[:, 2] * boxes[:, 3]
    return Truth(image_id, 64, 64, boxes, np.array(class_ids, np.int64), areas, np.zeros(count, bool))


def found(*class_ids: int) -> Detections:
    boxes = np.array([[10, 10, 40, 40]] * len(class_ids), np.float32).reshape(-1, 4)
    return Detections(boxes, np.full(len(class_ids), 0.9, np.float32), np.array(class_ids, np.int64))


RESULTS: Results = {
    1: ImageResult(truth(1, 0), {"F": found(0)}),
    2: ImageResult(truth(2, 0), {"F": found(1)}),
    3: ImageResult(truth(3, 1), {"F": found()}),
}


def test_each_class_has_its_own_figures_and_one_without_objects_none() -> None:
    figures = class_metrics(RESULTS, "F", NAMES)
    assert figures["cat <dog>"] == (2, pytest.approx(51 / 101), pytest.approx(51 / 101))
    assert figures["bird"] == (1, 0, 0)
    assert figures["fish"] == (0, -1, -1)


def test_the_worst_images_are_those_with_the_most_mistakes() -> None:
    assert worst_images(RESULTS, "F", 2) == [(2, 1, 1), (3, 1, 0)]


@pytest.mark.parametrize(("model", "count"), [("yolo-t", 9), ("yolo-n", 3), ("detr-r18", 10)])
def test_the_ladder_goes_from_full_to_base(model: str, count: int) -> None:
    with torch.device("meta"):
        space = build_model(model, 3).space
    ladder = depth_ladder(space)
    assert (ladder[0], ladder[-1], len(ladder)) == (space.full, space.base, count)
    depths = [sum(config.full_paths) for config in ladder]
    assert depths == sorted(depths, reverse=True)


@pytest.fixture()
def run(tmp_path: Path) -> Path:
    """A finished run of an untrained network on two pictures."""
    folder = tmp_path / "pets"
    folder.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((64, 64, 3), 90, np.uint8))
    content = {
        "images": [{"id": 5 + i, "file_name": f"{name}.png", "width": 64, "height": 64} for i, name in enumerate("ab")],
        "annotations": [{"id": 1, "image_id": 6, "category_id": 1, "bbox": BOX}],
        "categories": [{"id": 1 + index, "name": name} for index, name in enumerate(NAMES)],
    }
    file = folder / "val.json"
    file.write_text(json.dumps(content))
    coco = CocoSettings(str(file), str(folder), str(file), str(folder))
    recipe = Recipe(model="yolo-n", image_size=(64, 64), iterations=2, coco=coco)
    torch.manual_seed(0)
    save_weights(recipe.build_model(3), folder / "model.safetensors", recipe, NAMES, 2)
    (folder / "log.csv").write_text("iteration,super_box,base_box,gradient_norm\n1,2,3,4\n2,1,2,3\n")
    (folder / "validation.csv").write_text("iteration,super_AP,base_AP\n2,0.1,0.2\n")
    return folder


def test_the_page_stands_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert len(re.findall(r'<img alt="" src="data:image/(?:png|jpeg);base64,', page)) == page.count("<img") == 3
    assert "cat &lt;dog&gt;" in page
    assert "cat <dog>" not in page
    assert "yolo-n, 64x64 pixels, 2 iterations" in page
    assert "image 6: 1 missed" in page


@pytest.mark.parametrize("missing", ["model.safetensors", "log.csv"])
def test_a_run_that_is_not_finished_is_refused_in_one_line(
    run: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / missing).unlink()
    assert main(["report", str(run)]) == 1
    error = capsys.readouterr().err
    assert missing in error
    assert error.count("\n") == 1

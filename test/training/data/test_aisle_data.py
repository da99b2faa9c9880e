"""The aisle data set: disjoint splits, reproducible images, COCO files that the reference tool reads."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from anydepth_perception.aisle import CLASS_NAMES
from training.data import aisle


def test_splits_are_disjoint_and_have_the_promised_sizes() -> None:
    for first, second in itertools.combinations(aisle.SPLITS.values(), 2):
        assert first.stop <= second.start or second.stop <= first.start
    assert len(aisle.SPLITS["test"]) == 500 and len(aisle.SPLITS["val"]) == 500
    assert len(aisle.SPLITS["train"]) >= 100_000


def test_images_are_reproducible_and_differ_between_splits() -> None:
    first, second = (aisle.render_image("val", 3) for _ in range(2))
    assert first.image.shape == (320, 320, 3)
    assert np.array_equal(first.image, second.image) and np.array_equal(first.boxes, second.boxes)
    assert not np.array_equal(first.image, aisle.render_image("train", 3).image)


@pytest.mark.parametrize(
    ("split", "index", "reason"),
    [("dev", 0, "split 'dev'"), ("test", 500, "0 to 499"), ("val", -1, "image -1")],
)
def test_wrong_split_or_index_is_named(split: str, index: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        aisle.render_image(split, index)


@pytest.mark.parametrize("count", [0, 501])
def test_wrong_count_is_named(count: int) -> None:
    with pytest.raises(ValueError, match=str(count)):
        aisle.coco_ground_truth("test", count)


def test_coco_export_loads_in_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    path = aisle.write_coco("val", tmp_path, 4)
    loaded = coco.COCO(str(path))
    assert [loaded.cats[i]["name"] for i in sorted(loaded.cats)] == list(CLASS_NAMES)
    for index, image_id in enumerate(sorted(loaded.imgs)):
        frame = aisle.render_image("val", index)
        written = cv2.imread(str(tmp_path / "val" / loaded.imgs[image_id]["file_name"]))
        assert np.array_equal(cv2.cvtColor(written, cv2.COLOR_BGR2RGB), frame.image)
        annotations = loaded.loadAnns(loaded.getAnnIds([image_id], iscrowd=False))
        boxes = np.array([a["bbox"] for a in annotations]).reshape(-1, 4)
        assert np.array_equal(boxes[:, :2] + boxes[:, 2:], frame.boxes[:, 2:])
        assert [a["category_id"] - 1 for a in annotations] == frame.class_ids.tolist()
        assert len(loaded.getAnnIds([image_id], iscrowd=True)) == len(frame.ignore_boxes)


def test_ground_truth_in_memory_equals_the_written_one(tmp_path: Path) -> None:
    path = aisle.write_coco("test", tmp_path, 2)
    assert json.loads(path.read_text()) == aisle.coco_ground_truth("test", 2)


def test_at_least_a_third_of_the_objects_of_the_test_split_are_small() -> None:
    assert aisle.statistics("test", 500)["small_share"] >= 1 / 3


def test_statistics_count_every_class() -> None:
    counts = aisle.statistics("train", 60)
    assert list(counts["classes"]) == list(CLASS_NAMES)
    total = sum(c["objects"] for c in counts["classes"].values())
    assert counts["objects_per_image"] == pytest.approx(total / 60, abs=0.01)


def test_command_writes_a_contact_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["aisle", "--split", "train", "--count", "5", "--boxes", "--contact-sheet", str(sheet)]
    monkeypatch.setattr("sys.argv", arguments)
    aisle.main()
    assert cv2.imread(str(sheet)).shape == (640, 960, 3)


def test_command_without_anything_to_do_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["aisle"])
    with pytest.raises(SystemExit):
        aisle.main()
    assert "nothing to do" in capsys.readouterr().err

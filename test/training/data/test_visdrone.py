"""VisDrone to COCO: classes, what the benchmark does not judge, and lines that are not of the format."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.coco import CocoData
from training.data.visdrone import CLASSES, VisdroneError, convert, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image of 80x60 pixels, without annotations yet."""
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0000001.jpg"), np.zeros((60, 80, 3), np.uint8))
    return tmp_path


def annotate(folder: Path, *lines: str, name: str = "0000001") -> Path:
    (folder / "annotations" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def read_back(folder: Path) -> CocoData:
    assert main([str(folder), str(folder / "out.json")]) == 0
    return CocoData(folder / "out.json", folder / "images")


def test_a_line_is_an_object_of_its_class(folder: Path) -> None:
    image = read_back(annotate(folder, "10,20,30,15,1,4,0,2", "1,2,3,4,1,10,1,0")).read(0)
    assert image.boxes.tolist() == [[10, 20, 40, 35], [1, 2, 4, 6]]
    assert [CLASSES[label] for label in image.labels] == ["car", "motor"]


def test_truncation_and_occlusion_are_kept(folder: Path) -> None:
    content, _ = convert(annotate(folder, "10,20,30,15,1,4,1,2"))
    assert (content["annotations"][0]["truncation"], content["annotations"][0]["occlusion"]) == (1, 2)


@pytest.mark.parametrize("category", [0, 11])
def test_ignored_regions_and_others_are_crowds_of_every_class(folder: Path, category: int) -> None:
    annotate(folder, f"10,20,30,15,0,{category},0,0", "1,2,3,4,1,1,0,0")
    content, counts = convert(folder)
    crowds = [entry for entry in content["annotations"] if entry["iscrowd"]]
    assert [entry["category_id"] for entry in crowds] == [*range(1, 11)]
    assert (counts.objects, counts.ignored_regions, counts.others) == (1, int(category == 0), int(category == 11))
    image = read_back(folder).read(0)
    assert image.ignored.tolist() == [[10, 20, 40, 35]]
    assert image.boxes.tolist() == [[1, 2, 4, 6]]


def test_an_object_with_score_0_is_a_crowd_of_its_own_class(folder: Path) -> None:
    content, counts = convert(annotate(folder, "10,20,30,15,0,5,0,0"))
    assert [(entry["category_id"], entry["iscrowd"]) for entry in content["annotations"]] == [(5, 1)]
    assert counts.not_judged == 1


def test_a_comma_at_the_end_a_byte_order_mark_and_empty_lines_do_no_harm(folder: Path) -> None:
    content, _ = convert(annotate(folder, "\ufeff10,20,30,15,1,4,0,2,", "", "1,2,3,4,1,10,1,0,"))
    assert len(content["annotations"]) == 2


def test_boxes_without_area_are_left_out_and_counted(folder: Path) -> None:
    content, counts = convert(annotate(folder, "10,20,0,15,1,4,0,2"))
    assert content["annotations"] == [] and counts.zero_area == 1


def test_an_image_with_an_empty_file_is_kept(folder: Path) -> None:
    assert len(read_back(annotate(folder))) == 1


def test_files_without_a_partner_are_left_out_and_counted(folder: Path) -> None:
    annotate(folder, "1,2,3,4,1,10,1,0")
    annotate(folder, "1,2,3,4,1,10,1,0", name="0000009")
    cv2.imwrite(str(folder / "images" / "0000002.jpg"), np.zeros((4, 4, 3), np.uint8))
    content, counts = convert(folder)
    assert [entry["file_name"] for entry in content["images"]] == ["0000001.jpg"]
    assert (counts.images_without_annotations, counts.annotations_without_image) == (1, 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2,3,4,1,10,1", "is not x,y,width"),
        ("1,2,3,4,1,ten,1,0", "is not x,y,width"),
        ("1,2,3,4,1,12,0,0", "the category is 12; VisDrone's are 0 to 11"),
    ],
)
def test_a_line_that_is_not_of_the_format_is_named(folder: Path, line: str, reason: str) -> None:
    with pytest.raises(VisdroneError, match=rf"0000001\.txt:2: .*{reason}"):
        convert(annotate(folder, "1,2,3,4,1,10,1,0", line))


def test_the_command_names_what_is_missing(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "absent"), str(tmp_path / "out.json")]) == 1
    assert "absent/images is no folder" in capsys.readouterr().err
    assert main([str(folder), str(tmp_path / "out.json")]) == 1
    assert "no image of" in capsys.readouterr().err


def test_the_command_tells_its_counts(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(annotate(folder, "1,2,3,4,1,10,1,0")), str(folder / "out.json")]) == 0
    assert "1 images, 1 objects" in capsys.readouterr().out
    assert len(json.loads((folder / "out.json").read_text())["categories"]) == 10

"""COCO files: what is kept, cut, left out and counted, and how a wrong file is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_folder import box, write_folder

from training.data import aisle
from training.data.annotated import fit
from training.data.coco import CocoData, main
from training.data.coco_file import CocoError
from training.data.pictures import ImageReadError
from training.data.scenes import annotated

EXIF_ROTATED = bytes.fromhex("ffe1 0022 457869660000 4d4d002a00000008 0001 0112 0003 00000001 0006 0000 00000000")
"""The application segment of a JPEG whose camera was turned by a quarter."""


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_category_ids_with_gaps_become_class_indices_and_back(tmp_path: Path) -> None:
    categories = ((90, "last"), (3, "first"), (17, "middle"))
    annotations = [box(11, [1, 2, 3, 4], category=90), box(11, [5, 6, 7, 8], category=3)]
    data = CocoData(write_folder(tmp_path, annotations, categories=categories), tmp_path)
    assert data.class_names == ("first", "middle", "last")
    assert data.read(0).labels.tolist() == [2, 0]
    assert data.category_ids[data.read(0).labels].tolist() == [90, 3]


def test_boxes_become_corners_of_their_own_image(tmp_path: Path) -> None:
    annotations = [box(12, [1, 2, 3, 4]), box(11, [5, 6, 7, 8]), box(12, [0.5, 0, 10, 20.25])]
    data = CocoData(write_folder(tmp_path, annotations), tmp_path)
    assert data.read(0).boxes.tolist() == [[5, 6, 12, 14]]
    assert data.read(1).boxes.tolist() == [[1, 2, 4, 6], [0.5, 0, 10.5, 20.25]]


def test_crowds_are_regions_to_ignore_and_no_objects(tmp_path: Path) -> None:
    crowds = [box(11, [1, 1, 5, 5], category=category, iscrowd=1) for category in (1, 7)]
    annotations = [*crowds, box(11, [9, 9, 2, 2])]
    data = CocoData(write_folder(tmp_path, annotations), tmp_path)
    image = data.read(0)
    assert image.boxes.tolist() == [[9, 9, 11, 11]]
    assert image.ignored.tolist() == [[1, 1, 6, 6]]
    assert (data.summary.objects, data.summary.crowd_regions) == (1, 2)


def test_images_without_objects_are_kept_and_counted(tmp_path: Path) -> None:
    data = CocoData(write_folder(tmp_path, [box(12, [1, 1, 2, 2]), box(11, [1, 1, 2, 2], iscrowd=1)]), tmp_path)
    assert len(data) == 2
    assert data.read(0).boxes.shape == (0, 4)
    assert data.summary.empty_images == 1


def test_boxes_reaching_out_of_the_image_are_cut_and_counted(tmp_path: Path) -> None:
    data = CocoData(write_folder(tmp_path, [box(11, [-5, -5, 10, 10]), box(11, [35, 25, 50, 50])]), tmp_path)
    assert data.read(0).boxes.tolist() == [[0, 0, 5, 5], [35, 25, 40, 30]]
    assert data.summary.clipped_boxes == 2
    assert "2 boxes cut to their image" in str(data.summary)


@pytest.mark.parametrize("xywh", [[40, 0, 5, 5], [-5, 3, 5, 5], [0, 100, 5, 5]])
def test_boxes_outside_of_the_image_are_left_out_and_counted(tmp_path: Path, xywh: list[float]) -> None:
    data = CocoData(write_folder(tmp_path, [box(11, xywh), box(11, [1, 1, 2, 2])]), tmp_path)
    assert len(data.read(0).boxes) == 1
    assert (data.summary.outside_boxes, data.summary.clipped_boxes) == (1, 0)


@pytest.mark.parametrize("xywh", [[1, 1, 0, 5], [1, 1, 5, 0], [9, 9, -3, 4]])
def test_boxes_without_area_are_left_out_and_counted(tmp_path: Path, xywh: list[float]) -> None:
    data = CocoData(write_folder(tmp_path, [box(11, xywh), box(11, [1, 1, 2, 2])]), tmp_path)
    assert len(data.read(0).boxes) == 1
    assert (data.summary.zero_area_boxes, data.summary.outside_boxes) == (1, 0)


def test_missing_images_are_left_out_with_their_boxes_and_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [box(11, [1, 1, 2, 2]), box(12, [3, 3, 2, 2])])
    (tmp_path / "0.png").unlink()
    data = CocoData(path, tmp_path)
    assert data.image_ids.tolist() == [12]
    assert data.read(0).boxes.tolist() == [[3, 3, 5, 5]]
    assert (data.summary.missing_images, data.summary.first_missing) == (1, ("0.png",))


def test_a_folder_without_any_of_the_images_is_an_error(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [])
    with pytest.raises(CocoError, match=r"none of its 2 images is in .*elsewhere: 0\.png"):
        CocoData(path, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c["annotations"][0].update(image_id=99), "annotation 100: there is no image 99"),
        (lambda c: c["annotations"][0].update(category_id=2), "annotation 100: there is no category 2; there are 1, 7"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 100: bbox is None"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 100: bbox is \[1, 2, 3\]"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "annotation 100: bbox is"),
        (lambda c: c["annotations"].append(5), "annotation at position 1: is 5, not an object"),
        (lambda c: c["images"][1].update(id=11), "image 11: two images have this id"),
        (lambda c: c["images"][0].pop("width"), "image 11: width is None; it must be of type int"),
        (lambda c: c["images"][0].update(height=0), "image 11: its height is 0"),
        (lambda c: c["images"][0].update(file_name=3), "image 11: file_name is 3"),
        (lambda c: c["images"].clear(), "has no images"),
        (lambda c: c["categories"].clear(), "has no categories"),
        (lambda c: c["categories"][1].update(id=1), "category 1: its id is also that of 'box'"),
        (lambda c: c.pop("annotations"), "has no list 'annotations'"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_with_its_file(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    path = write_folder(tmp_path, [box(11, [1, 1, 2, 2])])
    change(path, edit)
    with pytest.raises(CocoError, match=rf"instances\.json: .*{reason}"):
        CocoData(path, tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not valid JSON"), ("[]", "holds a list"), ("\x80", "not valid JSON")],
)
def test_a_file_that_is_no_annotation_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CocoError, match=rf"wrong\.json: {reason}"):
        CocoData(path, tmp_path)


def test_an_annotation_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match=r"absent\.json: No such file"):
        CocoData(tmp_path / "absent.json", tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_a_broken_jpeg_is_named_when_it_is_read(tmp_path: Path, content: bytes | str) -> None:
    path = write_folder(tmp_path, [], suffix=".jpg")
    jpeg = tmp_path / "0.jpg"
    whole = jpeg.read_bytes()
    jpeg.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    data = CocoData(path, tmp_path)
    with pytest.raises(ImageReadError, match=r"0\.jpg: no image, or a damaged one"):
        data.read(0)


def test_an_image_of_another_size_than_annotated_is_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [])
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(ImageReadError, match=r"0\.png: is 20x30 pixels, but .*instances\.json says 40x30"):
        CocoData(path, tmp_path).read(0)


def test_an_image_is_read_as_rgb_and_grey_has_three_channels(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [], sizes=((4, 4), (4, 4)))
    cv2.imwrite(str(tmp_path / "0.png"), np.full((4, 4, 3), (10, 20, 30), np.uint8))
    cv2.imwrite(str(tmp_path / "1.png"), np.full((4, 4), 7, np.uint8))
    data = CocoData(path, tmp_path)
    assert data.read(0).image[0, 0].tolist() == [30, 20, 10]
    assert data.read(1).image[0, 0].tolist() == [7, 7, 7]


def test_an_image_is_read_as_stored_whatever_its_exif_rotation(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [], sizes=((40, 16),), suffix=".jpg")
    plain = cv2.imread(str(tmp_path / "0.jpg"))
    content = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(content[:2] + EXIF_ROTATED + content[2:])
    assert cv2.imread(str(tmp_path / "0.jpg")).shape == (40, 16, 3)
    assert np.array_equal(CocoData(path, tmp_path).read(0).image[..., ::-1], plain)


def test_written_aisle_scenes_read_back_as_those_rendered_on_the_fly(tmp_path: Path) -> None:
    data = CocoData(aisle.write_coco("val", tmp_path, 5), tmp_path / "val")
    assert data.class_names == tuple(aisle.CLASS_NAMES)
    assert data.summary.objects > 0
    for index in range(5):
        read = fit(data.read(index), (128, 160))
        rendered = fit(annotated(aisle.render_image("val", index)), (128, 160))
        assert np.array_equal(read.image, rendered.image)
        assert np.array_equal(read.boxes, rendered.boxes)
        assert np.array_equal(read.labels, rendered.labels)
        assert {*map(tuple, read.ignored.tolist())} == {*map(tuple, rendered.ignored.tolist())}


def test_the_command_counts_and_names_unreadable_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_folder(tmp_path, [box(11, [1, 1, 2, 2])])
    assert main([str(path), str(tmp_path), "--decode"]) == 0
    assert "2 images (1 without objects), 1 objects" in capsys.readouterr().out
    (tmp_path / "1.png").write_bytes(b"no")
    assert main([str(path), str(tmp_path), "--decode", "--json"]) == 1
    (line,) = json.loads(capsys.readouterr().out)["unreadable"]
    assert "1.png" in line


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "absent.json"), str(tmp_path)]) == 1
    assert "absent.json" in capsys.readouterr().err

"""What the reader of COCO's format accepts beyond the letter of it, and what it refuses in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_folder import box, write_folder

from training.data.coco import CocoData, main
from training.data.coco_file import CocoError

ROTATED = 6
UPSIDE_DOWN = 3

Content = dict[str, Any]


def change(path: Path, edit: Callable[[Content], object]) -> Path:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def add_exif(path: Path, orientation: int) -> None:
    """Puts an EXIF block with the orientation alone into a JPEG."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation, 0, 0])
    body = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + content[2:])


def test_whole_floats_and_digits_are_ids_as_integers_are(tmp_path: Path) -> None:
    def as_others_write(content: Content) -> None:
        content["images"][0]["id"], content["images"][0]["width"] = 11.0, 40.0
        content["categories"][1]["id"] = "7"
        content["annotations"][0].update(image_id="11", category_id=7.0)

    path = change(write_folder(tmp_path, [box(11, [1, 2, 3, 4], category=7)]), as_others_write)
    data = CocoData(path, tmp_path)
    assert (data.image_ids.tolist(), data.category_ids.tolist()) == ([11, 12], [1, 7])
    assert data.objects(0)[0].tolist() == [[1, 2, 4, 6]]
    assert data.objects(0)[1].tolist() == [1]


@pytest.mark.parametrize("number", ["frame_0007", "007", 2**63, 10**30, -(10**20)])
def test_ids_of_text_or_beyond_64_bits_are_counted_anew(tmp_path: Path, number: object) -> None:
    def renamed(content: Content) -> None:
        content["images"][1]["id"] = number
        content["annotations"][0]["image_id"] = number
        content["categories"][0]["id"] = number
        content["annotations"][0]["category_id"] = number

    data = CocoData(change(write_folder(tmp_path, [box(12, [1, 2, 3, 4])]), renamed), tmp_path)
    assert data.image_ids.tolist() == [1, 2]
    assert sorted(data.category_ids.tolist()) == [1, 2]
    boxes, labels, _ = data.objects(1)
    assert boxes.tolist() == [[1, 2, 4, 6]]
    assert data.class_names[labels[0]] == "box"


@pytest.mark.parametrize(
    "outline",
    [
        [[5, 6, 15, 6, 15, 26, 5, 26]],
        [[5, 6, 9, 6, 9, 26], [8, 10, 15, 10, 15, 20]],
        [5, 6, 15, 6, 15, 26],
        {"size": [30, 40], "counts": [5 * 30 + 6] + [20, 10] * 9 + [20, 4 + 25 * 30]},
    ],
)
@pytest.mark.parametrize("missing", [None, []])
def test_an_outline_without_a_box_gets_the_box_around_it(tmp_path: Path, outline: Any, missing: Any) -> None:
    def outlined(content: Content) -> None:
        content["annotations"][0].update(bbox=missing, segmentation=outline)

    data = CocoData(change(write_folder(tmp_path, [box(11, [0, 0, 1, 1])]), outlined), tmp_path)
    assert data.objects(0)[0].tolist() == [[5, 6, 15, 26]]


@pytest.mark.parametrize(
    "outline", [[], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], {"counts": [3]}, "x", [[1, 2, 3, "4", 5, 6]]]
)
def test_neither_box_nor_outline_is_named(tmp_path: Path, outline: Any) -> None:
    def outlined(content: Content) -> None:
        content["annotations"][0].update(bbox=None, segmentation=outline)

    path = change(write_folder(tmp_path, [box(11, [0, 0, 1, 1])]), outlined)
    with pytest.raises(CocoError, match=r"annotation 100: bbox is None; .* beside a polygon"):
        CocoData(path, tmp_path)


@pytest.mark.parametrize("missing", ["left out", None])
def test_an_image_without_width_and_height_has_those_of_its_file(tmp_path: Path, missing: object) -> None:
    def sizeless(content: Content) -> None:
        for entry in content["images"]:
            for side in ("width", "height"):
                if missing is None:
                    entry[side] = None
                else:
                    del entry[side]

    path = change(write_folder(tmp_path, [box(11, [30, 20, 50, 50])]), sizeless)
    data = CocoData(path, tmp_path)
    assert data.objects(0)[0].tolist() == [[30, 20, 40, 30]]
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(CocoError, match=r"image 12: has no width and height, and its file tells none: .*1\.png"):
        CocoData(path, tmp_path)


def test_an_image_without_size_and_file_is_missing(tmp_path: Path) -> None:
    def sizeless(content: Content) -> None:
        content["images"].append({"id": 13, "file_name": "gone.png"})

    assert CocoData(change(write_folder(tmp_path, []), sizeless), tmp_path).summary.first_missing == ("gone.png",)


@pytest.mark.parametrize("name", ["photos\\a.png", "photos/../photos/a.png", ".\\photos\\a.png"])
def test_file_names_of_other_systems_are_found(tmp_path: Path, name: str) -> None:
    path = write_folder(tmp_path, [])
    (tmp_path / "photos").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "photos" / "a.png")
    data = CocoData(change(path, lambda c: c["images"][0].update(file_name=name)), tmp_path)
    assert data.path(0) == tmp_path / "photos" / "a.png"


@pytest.mark.parametrize("name", ["../0.png", "/etc/passwd", "..\\0.png", "a/../../0.png"])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    path = change(write_folder(folder, []), lambda c: c["images"][0].update(file_name=name))
    (tmp_path / "0.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(CocoError, match=r"image 11: file_name .* leads out of .*images; give the folder"):
        CocoData(path, folder)


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "nul\0.png"])
def test_a_name_that_no_file_can_have_is_a_missing_image(tmp_path: Path, name: str) -> None:
    path = change(write_folder(tmp_path, []), lambda c: c["images"][0].update(file_name=name))
    assert CocoData(path, tmp_path).summary.first_missing == (name,)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c["categories"][1].update(name="box"), "category 7: its name 'box' is also that of category 1"),
        (lambda c: c["categories"][1].update(name=" box "), "category 7: its name 'box' is also that of category 1"),
        (lambda c: c["categories"][1].update(name=" "), "category 7: its name is empty"),
        (lambda c: c["categories"][1].update(id="1"), "category '1': its id is also that of 'box'"),
        (lambda c: c["images"][0].update(width=2**40), "image 11: its width is 1099511627776; it must be 1 to"),
        (lambda c: c["images"][0].update(width="wide"), "image 11: width is 'wide'"),
        (lambda c: c["images"][0].update(id=True), "image True: id is True; it must be a whole number or a text"),
        (lambda c: c["images"][0].update(id=1.5), r"image 1\.5: id is 1\.5"),
        (lambda c: c["images"][0].update(id=[1]), r"image \[1\]: id is \[1\]"),
        (lambda c: c["annotations"][0].update(iscrowd="no"), "annotation 100: iscrowd is 'no'; it must be 0 or 1"),
        (lambda c: c["annotations"][0].update(iscrowd=2), "annotation 100: iscrowd is 2"),
        (lambda c: c["annotations"][0].update(iscrowd=[]), r"annotation 100: iscrowd is \[\]"),
        (lambda c: c["annotations"][0].update(bbox=[0, 0, 1, 10**400]), "annotation 100: bbox is"),
        (lambda c: c["annotations"][0].update(bbox=[0, 0, 1, 1e300]), "annotation 100: bbox is .* that large"),
        (lambda c: c["annotations"][0].update(area="big"), "annotation 100: area is 'big'"),
        (lambda c: c["annotations"].append(dict(c["annotations"][0])), "annotation 100: 2 annotations have this id"),
    ],
)
def test_values_that_would_break_or_mislead_later_are_refused(
    tmp_path: Path, edit: Callable[[Content], object], reason: str
) -> None:
    path = change(write_folder(tmp_path, [box(11, [1, 1, 2, 2])]), edit)
    with pytest.raises(CocoError, match=rf"instances\.json: {reason}") as refused:
        CocoData(path, tmp_path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("flag", [0, "0", 0.0, False, None])
def test_every_way_of_writing_no_crowd_is_an_object(tmp_path: Path, flag: object) -> None:
    data = CocoData(write_folder(tmp_path, [box(11, [1, 1, 2, 2], iscrowd=flag)]), tmp_path)
    assert (data.summary.objects, data.summary.crowd_regions) == (1, 0)


@pytest.mark.parametrize("flag", [1, "1", 1.0, True])
def test_every_way_of_writing_a_crowd_is_a_region_to_ignore(tmp_path: Path, flag: object) -> None:
    data = CocoData(write_folder(tmp_path, [box(11, [1, 1, 2, 2], iscrowd=flag)]), tmp_path)
    assert (data.summary.objects, data.summary.crowd_regions) == (0, 1)


def test_a_root_category_without_objects_is_told(tmp_path: Path) -> None:
    def as_exported(content: Content) -> None:
        content["categories"] = [
            {"id": 0, "name": "parts", "supercategory": "none"},
            {"id": 1, "name": "box", "supercategory": "parts"},
        ]

    data = CocoData(change(write_folder(tmp_path, [box(11, [1, 1, 2, 2])]), as_exported), tmp_path)
    assert data.class_names == ("parts", "box")
    assert data.summary.root_classes == ("parts",)
    assert "without any object: parts; parts is only the root of others" in str(data.summary)


def test_a_turned_picture_annotated_as_it_is_looked_at_is_told_by_its_exif(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [], sizes=((40, 16),), suffix=".jpg")
    add_exif(tmp_path / "0.jpg", ROTATED)
    assert CocoData(path, tmp_path).read(0).image.shape == (16, 40, 3)
    change(path, lambda c: c["images"][0].update(width=16, height=40))
    with pytest.raises(ValueError, match=r"is 40x16 pixels, but .* says 16x40; its EXIF orientation is 6"):
        CocoData(path, tmp_path).read(0)


def test_the_command_counts_pictures_with_an_exif_orientation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_folder(tmp_path, [], sizes=((8, 8), (8, 8), (8, 8)), suffix=".jpg")
    add_exif(tmp_path / "0.jpg", UPSIDE_DOWN)
    add_exif(tmp_path / "1.jpg", 1)
    assert main([str(path), str(tmp_path)]) == 0
    assert "1 images have an EXIF orientation (1 with 3)" in capsys.readouterr().out
    main([str(path), str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["exif_orientations"] == {"3": 1}


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(CocoData(path, tmp_path)) == 2


def test_grey_pixels_stay_as_stored_whatever_the_header_says(tmp_path: Path) -> None:
    path = write_folder(tmp_path, [], sizes=((8, 4),), suffix=".jpg")
    ramp = np.linspace(0, 255, 8, dtype=np.uint8)[None].repeat(4, 0)
    cv2.imwrite(str(tmp_path / "0.jpg"), ramp, [cv2.IMWRITE_JPEG_QUALITY, 100])
    plain = CocoData(path, tmp_path).read(0).image
    add_exif(tmp_path / "0.jpg", UPSIDE_DOWN)
    assert np.array_equal(CocoData(path, tmp_path).read(0).image, plain)

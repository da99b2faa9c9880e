"""Pictures labelled in any format become COCO files, a contact sheet and a recipe; what is wrong is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_folder import box, write_folder

from training.data.coco import CocoData
from training.data.prepare import main
from training.recipes.recipe import load_recipe

Run = Callable[..., tuple[int, str, str]]
SIZE = (40, 30)
"""Width and height of the pictures."""


@pytest.fixture()
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command into tmp_path/out: exit code, standard output, standard error."""

    def run(source: Path, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(source), "--output", str(tmp_path / "out"), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def picture(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


PETS = "train: images\nnames: [cat, dog]\n"
Boxes = list[tuple[str, int, int, int, int]]


def yolo_folder(folder: Path, line: str = "1 0.5 0.5 0.5 0.2", yaml: str = PETS) -> Path:
    """Four pictures, of which the third has no text file."""
    for index in range(4):
        picture(folder / "images" / f"{index}.png", index)
        if index != 2:
            text(folder / "labels" / f"{index}.txt", line + "\n")
    text(folder / "data.yaml", yaml)
    return folder


def voc_file(path: Path, boxes: Boxes, size: tuple[int, int] = SIZE, more: str = "") -> None:
    objects = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, x0, y0, x1, y1 in boxes
    )
    text(
        path,
        f"<annotation><filename>{path.stem}.png</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"<depth>3</depth></size>{objects}</annotation>",
    )


def voc_folder(folder: Path, boxes: Boxes, more: str = "") -> Path:
    for index in range(4):
        picture(folder / "JPEGImages" / f"{index}.png", index)
        voc_file(folder / "Annotations" / f"{index}.xml", boxes, more=more)
    return folder


def both_sides(out: Path, root: Path) -> tuple[CocoData, CocoData]:
    return CocoData(out / "train.json", root), CocoData(out / "val.json", root)


def all_boxes(out: Path) -> list[list[float]]:
    entries = [json.loads((out / f"{split}.json").read_text())["annotations"] for split in ("train", "val")]
    return [entry["bbox"] for entry in entries[0] + entries[1]]


def test_yolo_text_becomes_coco_with_recipe_and_sheet(tmp_path: Path, run: Run) -> None:
    source = yolo_folder(tmp_path / "pets")
    code, out, error = run(source)
    assert code == 0, error
    train, val = both_sides(tmp_path / "out", source / "images")
    assert (len(train), len(val)) == (2, 2)
    assert train.class_names == val.class_names == ("cat", "dog")
    assert all_boxes(tmp_path / "out") == [pytest.approx([10, 12, 20, 6])] * 3
    assert "pictures without a text file taken as background (1)" in out
    assert cv2.imread(str(tmp_path / "out" / "contact_sheet.jpg")).shape == (320, 4 * 320, 3)
    recipe = load_recipe(str(tmp_path / "out" / "recipe.yaml"))
    assert recipe.coco is not None
    assert Path(recipe.coco.folder) == source / "images"
    assert f"python -m training.train {tmp_path / 'out' / 'recipe.yaml'}" in out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0.25 0.2 0.5 0.2 0.5 0.6 0.25 0.6", [10, 6, 10, 12]),
        ("0 0.5 0.5 0.5 0.2 0.87", [10, 12, 20, 6]),
        ("0.0\t0.5  0.5 0.5 0.2", [10, 12, 20, 6]),
        ("0 0.95 0.5 0.14 0.2", [40 * 0.88, 12, 40 * 0.12, 6]),
    ],
)
def test_polygons_scores_tabs_and_boxes_over_the_edge(
    tmp_path: Path, run: Run, line: str, expected: list[float]
) -> None:
    assert run(yolo_folder(tmp_path / "pets", line))[0] == 0
    assert all_boxes(tmp_path / "out")[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n",
        "path: .\ntrain: [train/images]\nval: val.txt\nnames: {0: cat}\n",
    ],
)
def test_splits_of_data_yaml_are_kept_however_paths_are_written(tmp_path: Path, run: Run, yaml: str) -> None:
    folder = tmp_path / "set"
    for split, first in (("train", 0), ("valid", 10)):
        for index in range(first, first + 3):
            picture(folder / split / "images" / f"{index}.png", index)
            text(folder / split / "labels" / f"{index}.txt", "0 0.5 0.5 0.5 0.2\n")
    text(folder / "data.yaml", yaml)
    text(folder / "val.txt", "\n".join(f"./valid/images/{index}.png" for index in (10, 11, 12)))
    assert run(folder)[0] == 0
    _, val = both_sides(tmp_path / "out", folder)
    assert sorted(val.path(index).name for index in range(len(val))) == ["10.png", "11.png", "12.png"]


@pytest.mark.parametrize(
    ("line", "yaml", "reason"),
    [
        ("2 0.5 0.5 0.1 0.1", "", r"0\.txt:1: the class is 2; there are 0 to 1 \(cat, dog\)"),
        ("-1 0.5 0.5 0.1 0.1", "", r"0\.txt:1: the class is -1"),
        ("1 200 100 50 40", "", r"0\.txt:1: .* numbers outside of \[0, 1\]"),
        ("cat 0.5 0.5 0.1 0.1", "", r"0\.txt:1: .* with a whole class"),
        ("1 0.5 0.5", "", r"0\.txt:1: .* is not `class x y width height`"),
        ("1 0.5 0.5 nan 0.1", "", r"0\.txt:1: .* is not `class x y width height`"),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "", r"0\.txt:1: has 7 numbers"),
        ("1 0.5 0.5 0.1 0.1", "train: images\nnames: [cat, cat]\n", "two classes are called 'cat'"),
        ("1 0.5 0.5 0.1 0.1", "train: images\nnames: [cat, '']\n", "a class has an empty name"),
        ("1 0.5 0.5 0.1 0.1", "train: images\nnames: [cat, dog]\nnc: 3\n", "nc is 3, but there are 2 names"),
        ("1 0.5 0.5 0.1 0.1", "train: pictures\nnames: [cat, dog]\n", "train is 'pictures', but there is no such"),
        ("1 0.5 0.5 0.1 0.1", "names: [cat, dog]\n", "neither train nor val names"),
        ("1 0.5 0.5 0.1 0.1", "train: images\nnames: {1: cat}\n", "the keys of names are not 0 to 0"),
    ],
)
def test_a_yolo_folder_with_a_fault_is_refused_in_one_line(
    tmp_path: Path, run: Run, line: str, yaml: str, reason: str
) -> None:
    source = yolo_folder(tmp_path / "pets", line, yaml or PETS)
    code, out, error = run(source)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert re.search(reason, error)


def test_text_labels_without_names_ask_for_them(tmp_path: Path, run: Run) -> None:
    source = yolo_folder(tmp_path / "pets")
    (source / "data.yaml").unlink()
    code, _, error = run(source)
    assert code == 1
    assert "give --class-names" in error
    assert run(source, "--class-names", "cat, dog")[0] == 0
    text(source / "classes.txt", "cat\ndog\n")
    assert run(source)[0] == 0
    assert both_sides(tmp_path / "out", source / "images")[0].class_names == ("cat", "dog")


def test_voc_corners_count_pixels_from_one_and_lie_inside(tmp_path: Path, run: Run) -> None:
    source = voc_folder(tmp_path / "voc", [("dog", 1, 1, 40, 30), ("cat", 11, 6, 20, 15)])
    assert run(source)[0] == 0
    train, val = both_sides(tmp_path / "out", source / "JPEGImages")
    assert train.class_names == ("cat", "dog")
    assert train.objects(0)[0].tolist() == [[0, 0, 40, 30], [10, 5, 20, 15]]
    assert (len(train), len(val)) == (2, 2)


def test_voc_files_that_count_from_zero_are_told_by_their_zeros(tmp_path: Path, run: Run) -> None:
    source = voc_folder(tmp_path / "voc", [("dog", 0, 0, 40, 30), ("cat", 10, 5, 20, 15)])
    _, out, _ = run(source)
    train, _ = both_sides(tmp_path / "out", source / "JPEGImages")
    assert train.objects(0)[0].tolist() == [[0, 0, 40, 30], [10, 5, 20, 15]]
    assert "coordinates taken to count from 0" in out


def test_difficult_voc_objects_are_regions_to_ignore(tmp_path: Path, run: Run) -> None:
    source = voc_folder(tmp_path / "voc", [("dog", 3, 3, 9, 9)], more="<difficult>1</difficult>")
    assert run(source)[0] == 0
    train, _ = both_sides(tmp_path / "out", source / "JPEGImages")
    assert (train.summary.objects, train.summary.crowd_regions) == (0, 2)


def test_the_splits_of_voc_are_kept(tmp_path: Path, run: Run) -> None:
    source = voc_folder(tmp_path / "voc", [("dog", 3, 3, 9, 9)])
    text(source / "ImageSets" / "Main" / "train.txt", "0\n1\n2\n")
    text(source / "ImageSets" / "Main" / "val.txt", "3\n")
    assert run(source)[0] == 0
    _, val = both_sides(tmp_path / "out", source / "JPEGImages")
    assert [val.path(index).name for index in range(len(val))] == ["3.png"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"boxes": [("", 3, 3, 9, 9)]}, "0.xml: object 1: has no name"),
        ({"boxes": [("dog", "x", 3, 9, 9)]}, "0.xml: object 1: its bndbox is"),
        ({"boxes": [("dog", 3, 3, 9, 9)], "size": (50, 60)}, "0.png: is 40x30 pixels, but"),
    ],
)
def test_a_voc_folder_with_a_fault_is_refused_in_one_line(
    tmp_path: Path, run: Run, wrong: dict[str, Any], reason: str
) -> None:
    source = voc_folder(tmp_path / "voc", [("dog", 3, 3, 9, 9)])
    voc_file(source / "Annotations" / "0.xml", **wrong)
    code, out, error = run(source)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert reason in error


def test_coco_with_polygons_alone_and_sloppy_ids_is_made_whole(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "coco"
    (source / "images").mkdir(parents=True)
    path = write_folder(source / "images", [], sizes=(SIZE,) * 4)
    content = json.loads(path.read_text())
    path.unlink()
    outline = {"category_id": 7, "segmentation": [[5, 6, 15, 6, 15, 26]]}
    content["annotations"] = [{"id": 1, "image_id": f"{11 + index}", **outline} for index in range(4)]
    content["categories"].append({"id": 9, "name": "things", "supercategory": "none"})
    for category in content["categories"][:2]:
        category["supercategory"] = "things"
    for image in content["images"]:
        del image["width"], image["height"]
    text(source / "labels.json", json.dumps(content))
    code, out, error = run(source)
    assert code == 0, error
    train, _ = both_sides(tmp_path / "out", source / "images")
    assert train.class_names == ("box", "ball")
    assert train.objects(0)[0].tolist() == [[5, 6, 15, 26]]
    assert "category 'things', only the root of others and without objects, left out" in out
    assert "annotation ids that stand twice numbered anew" in out


def test_coco_files_named_train_and_val_keep_their_sides_and_test_is_left_out(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "coco"
    (source / "images").mkdir(parents=True)
    path = write_folder(source / "images", [box(11, [1, 1, 5, 5])], sizes=(SIZE,) * 3)
    content = json.loads(path.read_text())
    path.unlink()
    for index, split in enumerate(("train", "val", "test")):
        part = {**content, "images": content["images"][index : index + 1], "annotations": []}
        text(source / f"instances_{split}.json", json.dumps(part))
    _, out, _ = run(source)
    train, val = both_sides(tmp_path / "out", source / "images")
    assert (train.path(0).name, val.path(0).name) == ("0.png", "1.png")
    assert "instances_test.json: a test set, left out" in out


def test_one_picture_on_both_sides_is_left_out_of_training(tmp_path: Path, run: Run) -> None:
    folder = yolo_folder(tmp_path / "set", yaml="train: train\nval: images\nnames: [cat, dog]\n")
    picture(folder / "train" / "again.png", 0)
    picture(folder / "train" / "new.png", 99)
    _, out, _ = run(folder)
    train, _ = both_sides(tmp_path / "out", folder)
    assert [train.path(index).name for index in range(len(train))] == ["new.png"]
    assert "training pictures that validate too left out of training (1)" in out


def test_pictures_without_labels_are_looked_at_and_asked_to_be_labelled(tmp_path: Path, run: Run) -> None:
    for index in range(2):
        picture(tmp_path / "raw" / f"{index}.png", index)
    code, out, _ = run(tmp_path / "raw")
    assert code == 0
    assert "pictures without labels, 2 pictures" in out
    assert "label them" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["contact_sheet.jpg"]


def test_broken_pictures_are_left_out_and_named(tmp_path: Path, run: Run) -> None:
    source = yolo_folder(tmp_path / "pets")
    whole = (source / "images" / "1.png").read_bytes()
    (source / "images" / "1.png").write_bytes(whole[:60])
    text(source / "images" / "9.png", "no picture")
    _, out, _ = run(source)
    assert "pictures that cannot be decoded left out: 1.png (1)" in out
    assert "pictures that cannot be read left out (1)" in out


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_what_is_no_source_is_refused_in_one_line(tmp_path: Path, run: Run, make: Callable[[Path], object]) -> None:
    make(tmp_path / "nothing")
    code, out, error = run(tmp_path / "nothing")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "nothing" in error


def test_classes_of_few_objects_are_told(tmp_path: Path, run: Run) -> None:
    out = run(yolo_folder(tmp_path / "pets"))[1]
    assert re.search(r"dog: \d objects train, \d validate   few", out)


def test_pictures_behind_links_are_taken_where_the_links_are(tmp_path: Path, run: Run) -> None:
    source = yolo_folder(tmp_path / "pets")
    (source / "images" / "0.png").rename(tmp_path / "elsewhere.png")
    (source / "images" / "0.png").symlink_to(tmp_path / "elsewhere.png")
    assert run(source)[0] == 0
    names = {data.path(index).name for data in both_sides(tmp_path / "out", source / "images") for index in (0, 1)}
    assert names == {"0.png", "1.png", "2.png", "3.png"}

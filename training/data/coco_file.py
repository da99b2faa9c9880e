"""The one reader of files in COCO's format: every entry checked, ids of any kind, boxes also from outlines."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.outlines import MAX_COORDINATE, outline_box
from training.data.pictures import ImageReadError, picture_size

MAX_SIDE = 2**20
"""Longest side of an image in pixels: what OpenCV decodes."""

INT64_MAX = 2**63 - 1


class CocoError(ValueError):
    """An annotation file that cannot be used; the message names the file and the entry."""


@dataclass(frozen=True)
class ImageEntry:
    """One image of the file.

    Attributes:
        id: the file's own where all are whole numbers below 2^63, otherwise counted from 1.
        file_name: relative to the images' folder, with `/` between folders.
        width: in pixels; 0 where the file does not say, and the image is missing.
        height: likewise.
        present: whether there is such a file.
    """

    id: int
    file_name: str
    width: int
    height: int
    present: bool


@dataclass(frozen=True)
class CocoFile:
    """What an annotation file says, checked.

    Attributes:
        path: of the file.
        class_names: by class index, in the order of the category ids (of the file, where they are text).
        category_ids: int64 [C]; counted from 1 where the file's are text.
        images: in the order of the file.
        places: int64 [A], the index of each annotation's image; -1 = an image that the file does not list.
        labels: int64 [A], class indices.
        crowd: bool [A], regions to ignore.
        boxes: float64 [A, 4], x, y, width, height in pixels, as they stand there.
        areas: float64 [A], in square pixels; of the box where the file has none.
        unlisted: what to say of the first annotation whose image the file does not list; empty if there is none.
        repeated: what to say of the first annotation with the id of another; empty if there is none.
        parents: names of categories that other categories give as their supercategory.
    """

    path: Path
    class_names: tuple[str, ...]
    category_ids: np.ndarray
    images: tuple[ImageEntry, ...]
    places: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    unlisted: str
    repeated: str
    parents: frozenset[str]


def read_coco(path: Path, folder: Path) -> CocoFile:
    """Reads and checks an annotation file; `folder` is where its images lie.

    Ids may be whole numbers, also as 3.0 or "3", or any text. Where width and height are left out, they are those of
    the image file. An annotation without a box gets that of its polygons or mask.

    Raises:
        CocoError: not such a file, or an entry that lacks something or contradicts another.
    """
    content = _load(path)
    categories, names, parents = _categories(content["categories"], path)
    image_ids, images = _images(content["images"], path, folder)
    place_of = {number: place for place, number in enumerate(image_ids)}
    class_of = {number: index for index, number in enumerate(categories)}
    rows = _Rows()
    for position, entry in enumerate(content["annotations"]):
        where = f"{path}: annotation {label_of(entry, position)}"
        image, category = (_id(_get(entry, key, where), key, where) for key in ("image_id", "category_id"))
        if category not in class_of:
            raise CocoError(f"{where}: there is no category {category}; there are {', '.join(map(str, class_of))}")
        if image not in place_of and not rows.unlisted:
            rows.unlisted = f"{where}: there is no image {image}"
        box = _box(entry, where)
        rows.places.append(place_of.get(image, -1))
        rows.labels.append(class_of[category])
        rows.crowd.append(_is_crowd(entry, where))
        rows.boxes.append(box)
        rows.areas.append(_area(entry, box, where))
    return CocoFile(
        path=path,
        class_names=names,
        category_ids=np.array(_int64(categories), np.int64),
        images=images,
        places=np.array(rows.places, np.int64),
        labels=np.array(rows.labels, np.int64),
        crowd=np.array(rows.crowd, bool),
        boxes=np.array(rows.boxes, np.float64).reshape(-1, 4),
        areas=np.array(rows.areas, np.float64),
        unlisted=rows.unlisted,
        repeated=_repeated(content["annotations"], path),
        parents=parents,
    )


class _Rows:
    """The annotations, column by column, while they are read."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.labels: list[int] = []
        self.crowd: list[bool] = []
        self.boxes: list[list[float]] = []
        self.areas: list[float] = []
        self.unlisted = ""


def label_of(entry: Any, position: int) -> str:
    """How an entry is called in a message: by its id, or by its place where it has none."""
    if isinstance(entry, dict) and "id" in entry:
        return repr(entry["id"])
    return f"at position {position}"


def name_inside(name: str, folder: Path) -> str | None:
    """A file name relative to `folder`, with `/` between folders; None where it leads out of the folder.

    A backslash separates folders, as in files written on Windows, unless there is a file with one in its name.
    """
    if "\\" in name and not os.path.isfile(folder / name):
        name = name.replace("\\", "/")
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, name))
    return os.path.relpath(path, root) if path.startswith(root.rstrip("/") + "/") else None


def _load(path: Path) -> dict[str, list[Any]]:
    def without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
        # Outlines are most of a file, and would be most of the memory.
        outline = entry.pop("segmentation", None)
        if outline and not entry.get("bbox"):
            entry["bbox"] = outline_box(outline)
        return entry

    try:
        with path.open(encoding="utf-8-sig") as file:
            content = json.load(file, object_hook=without_outlines)
    except OSError as error:
        raise CocoError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CocoError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CocoError(f"{path}: holds a {type(content).__name__}, not an object with images, annotations, categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise CocoError(f"{path}: has no list {key!r}; COCO's format has images, annotations and categories")
    return content


def _categories(entries: list[Any], path: Path) -> tuple[list[Hashable], tuple[str, ...], frozenset[str]]:
    """Ids and names in the order of the ids, and the names that are some category's supercategory."""
    if not entries:
        raise CocoError(f"{path}: has no categories")
    names: dict[Hashable, str] = {}
    owners: dict[str, Hashable] = {}
    for position, entry in enumerate(entries):
        where = f"{path}: category {label_of(entry, position)}"
        number, name = _id(_get(entry, "id", where), "id", where), _text(entry, "name", where).strip()
        if number in names:
            raise CocoError(f"{where}: its id is also that of {names[number]!r}")
        if not name:
            raise CocoError(f"{where}: its name is empty; a class needs one")
        if name in owners:
            raise CocoError(
                f"{where}: its name {name!r} is also that of category {owners[name]!r}; rename one, or join them"
            )
        names[number], owners[name] = name, number
    ids = _sorted(names)
    parents = {
        str(entry["supercategory"]).strip()
        for entry in entries
        if entry.get("supercategory") and str(entry["supercategory"]).strip() != entry["name"].strip()
    }
    return ids, tuple(names[number] for number in ids), frozenset(parents & owners.keys())


def _sorted(ids: Iterable[Hashable]) -> list[Hashable]:
    """By number; in the order given where any is text."""
    ids = list(ids)
    if all(isinstance(number, int) for number in ids):
        ids.sort(key=lambda number: number if isinstance(number, int) else 0)
    return ids


def _images(entries: list[Any], path: Path, folder: Path) -> tuple[list[Hashable], tuple[ImageEntry, ...]]:
    """The ids as annotations give them, and the images."""
    if not entries:
        raise CocoError(f"{path}: has no images")
    ids: dict[Hashable, tuple[str, int, int, bool]] = {}
    for position, entry in enumerate(entries):
        where = f"{path}: image {label_of(entry, position)}"
        number = _id(_get(entry, "id", where), "id", where)
        if number in ids:
            raise CocoError(f"{where}: two images have this id")
        given = _text(entry, "file_name", where)
        name = name_inside(given, folder)
        if name is None:
            raise CocoError(
                f"{where}: file_name {_shown(given)} leads out of {folder}; give the folder that holds all images"
            )
        present = os.path.isfile(folder / name)
        width, height = _size(entry, folder / name, present, where)
        ids[number] = name, width, height, present
    numbers = _int64(ids)
    return list(ids), tuple(ImageEntry(number, *values) for number, values in zip(numbers, ids.values(), strict=True))


def _size(entry: dict[str, Any], file: Path, present: bool, where: str) -> tuple[int, int]:
    """Width and height: of the entry, or else of the file; 0 where there is neither."""
    given = [entry.get(side) for side in ("width", "height")]
    if given == [None, None]:
        if not present:
            return 0, 0
        try:
            return picture_size(file)
        except ImageReadError as error:
            raise CocoError(f"{where}: has no width and height, and its file tells none: {error}") from error
    sides = []
    for side, value in zip(("width", "height"), given, strict=True):
        pixels = _whole(value)
        if not isinstance(pixels, int):
            raise CocoError(f"{where}: {side} is {_shown(value)}; it must be of type int, in pixels")
        if not 1 <= pixels <= MAX_SIDE:
            raise CocoError(f"{where}: its {side} is {_shown(value)}; it must be 1 to {MAX_SIDE} pixels")
        sides.append(pixels)
    return sides[0], sides[1]


def _get(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict):
        raise CocoError(f"{where}: is {_shown(entry)}, not an object")
    return entry.get(key)


def _text(entry: Any, key: str, where: str) -> str:
    value = _get(entry, key, where)
    if not isinstance(value, str):
        raise CocoError(f"{where}: {key} is {_shown(value)}; it must be of type str")
    return value


def _id(value: Any, key: str, where: str) -> Hashable:
    number = _whole(value)
    if number is None:
        raise CocoError(f"{where}: {key} is {_shown(value)}; it must be a whole number or a text")
    return number


def _whole(value: Any) -> int | str | None:
    """A whole number given as 3, 3.0 or "3"; another text as it is; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal() and value.isascii():
        return int(value) if str(int(value)) == value else value
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _int64(ids: Iterable[Hashable]) -> list[int]:
    """The ids themselves, or 1, 2, ... where any is text or does not fit 64 bits."""
    ids = list(ids)
    numbers = [number for number in ids if isinstance(number, int) and abs(number) <= INT64_MAX]
    return numbers if len(numbers) == len(ids) else list(range(1, len(ids) + 1))


def _box(entry: dict[str, Any], where: str) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite_number, box)):
        raise CocoError(
            f"{where}: bbox is {_shown(box)}; it must be x, y, width, height in pixels, or left out beside a polygon"
        )
    if any(abs(value) > MAX_COORDINATE for value in box):
        raise CocoError(f"{where}: bbox is {_shown(box)}; no image is that large")
    return box


def _area(entry: dict[str, Any], box: list[float], where: str) -> float:
    area = entry.get("area")
    if area is None:
        return box[2] * box[3]
    if not is_finite_number(area) or abs(area) > MAX_COORDINATE**2:
        raise CocoError(f"{where}: area is {_shown(area)}; it must be in square pixels, or left out")
    return area


def _is_crowd(entry: dict[str, Any], where: str) -> bool:
    value = entry.get("iscrowd", 0)
    number = 0 if value is None else int(value) if isinstance(value, bool) else _whole(value)
    if number not in (0, 1):
        raise CocoError(f"{where}: iscrowd is {_shown(value)}; it must be 0 or 1")
    return number == 1


def _repeated(entries: list[Any], path: Path) -> str:
    ids = Counter(_whole(entry["id"]) for entry in entries if "id" in entry)
    number, count = next(iter(ids.most_common(1)), (None, 0))
    if count < 2 or number is None:
        return ""
    return f"{path}: annotation {number!r}: {count} annotations have this id"


def is_finite_number(value: object) -> bool:
    """Whether a JSON value is a number that a double can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: Any) -> str:
    """A value in a message of one line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."

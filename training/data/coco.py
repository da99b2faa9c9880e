"""Images with boxes in COCO's format: checked once, counted, and read one at a time."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.data.annotated import Annotated

NAMED = 3
"""Of many files with the same fault, how many are named."""


class CocoError(ValueError):
    """An annotation file that cannot be used; the message names the file and the entry."""


class ImageReadError(ValueError):
    """An image that cannot be read, or not as annotated; the message begins with its path."""


@dataclass(frozen=True)
class CocoSummary:
    """What an annotation file holds, and what had to be left out or changed.

    Attributes:
        images: usable ones.
        empty_images: of them, those without any object (kept, as background).
        missing_images: listed in the file, but not in the folder (left out, with their annotations).
        objects: boxes to be found.
        crowd_regions: annotations with `iscrowd`, which become regions to ignore.
        clipped_boxes: reached out of their image, and were cut to it.
        outside_boxes: nothing of them lies in the image (left out).
        zero_area_boxes: without width or height (left out).
        objects_per_class: by class name.
        first_missing: file names of the first images that are missing.
    """

    images: int
    empty_images: int
    missing_images: int
    objects: int
    crowd_regions: int
    clipped_boxes: int
    outside_boxes: int
    zero_area_boxes: int
    objects_per_class: dict[str, int]
    first_missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"{self.images} images ({self.empty_images} without objects), {self.objects} objects, "
            f"{self.crowd_regions} regions to ignore"
        )
        changed = {
            "missing images left out": self.missing_images,
            "boxes cut to their image": self.clipped_boxes,
            "boxes outside of their image left out": self.outside_boxes,
            "boxes without area left out": self.zero_area_boxes,
        }
        text += "".join(f"; {count} {what}" for what, count in changed.items() if count)
        return text + (f" (the first: {', '.join(self.first_missing)})" if self.first_missing else "")


class CocoData:
    """The images and boxes of one annotation file, without the pixels.

    Attributes:
        class_names: by class index, in the order of the category ids.
        category_ids: int64 [C], the file's category id of each class index.
        image_ids: int64 [N], the file's id of each image.
        summary: counts.
    """

    def __init__(self, annotations: str | Path, images: str | Path) -> None:
        """Reads and checks the annotation file; `images` is the folder that its file names are relative to.

        Raises:
            CocoError: not such a file, an entry that contradicts another or lacks something, or no image at all.
        """
        self._file, self._folder = Path(annotations), Path(images)
        content = _load(self._file)
        self.category_ids, self.class_names = self._categories(content["categories"])
        entries, missing = self._present(content["images"])
        self.image_ids = np.array([entry["id"] for entry in entries], np.int64)
        self._names = [entry["file_name"] for entry in entries]
        self._sizes = np.array([[entry["width"], entry["height"]] for entry in entries], np.int32)
        known = {entry["id"] for entry in content["images"]}
        self.summary = self._take_annotations(content["annotations"], known, missing)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        return self._folder / self._names[index]

    def read(self, index: int) -> Annotated:
        """Image `index` with its boxes, both as stored: a rotation in the file's EXIF data is not applied.

        Raises:
            ImageReadError: the file cannot be decoded, or its size is not the annotated one.
        """
        image = read_image(self.path(index))
        width, height = self._sizes[index].tolist()
        if image.shape[:2] != (height, width):
            raise ImageReadError(
                f"{self.path(index)}: is {image.shape[1]}x{image.shape[0]} pixels, "
                f"but {self._file} says {width}x{height}"
            )
        return Annotated(image, *self.objects(index))

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes [n, 4] xyxy in pixels, labels [n] and regions to ignore [k, 4] of image `index`."""
        chosen = slice(self._starts[index], self._starts[index + 1])
        crowd = self._crowd[chosen]
        boxes, labels = self._boxes[chosen], self._labels[chosen]
        return boxes[~crowd], labels[~crowd].astype(np.int64), np.unique(boxes[crowd], axis=0)

    def _categories(self, entries: list[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
        if not entries:
            raise CocoError(f"{self._file}: has no categories")
        names: dict[int, str] = {}
        for position, entry in enumerate(entries):
            where = f"{self._file}: category {_label(entry, position)}"
            number, name = (_field(entry, key, kind, where) for key, kind in (("id", int), ("name", str)))
            if number in names:
                raise CocoError(f"{where}: its id is also that of {names[number]!r}")
            names[number] = name
        return np.array(sorted(names), np.int64), tuple(names[number] for number in sorted(names))

    def _present(self, entries: list[Any]) -> tuple[list[Any], list[str]]:
        """The images whose file is there, in the file's order, and the names of the others."""
        if not entries:
            raise CocoError(f"{self._file}: has no images")
        seen: set[int] = set()
        present, missing = [], []
        for position, entry in enumerate(entries):
            where = f"{self._file}: image {_label(entry, position)}"
            number = _field(entry, "id", int, where)
            if number in seen:
                raise CocoError(f"{where}: two images have this id")
            seen.add(number)
            name = _field(entry, "file_name", str, where)
            for side in ("width", "height"):
                if _field(entry, side, int, where) < 1:
                    raise CocoError(f"{where}: its {side} is {entry[side]}; it must be at least 1")
            if (self._folder / name).is_file():
                present.append(entry)
            else:
                missing.append(name)
        if not present:
            raise CocoError(f"{self._file}: none of its {len(entries)} images is in {self._folder}: {missing[0]}, say")
        return present, missing

    def _take_annotations(self, entries: list[Any], known: set[int], missing: list[str]) -> CocoSummary:
        """Keeps what lies in the images, sorted by image, and counts the rest."""
        place_of_image = {number: place for place, number in enumerate(self.image_ids.tolist())}
        class_of = {number: index for index, number in enumerate(self.category_ids.tolist())}
        places, labels, crowd, boxes = [], [], [], []
        for position, entry in enumerate(entries):
            where = f"{self._file}: annotation {_label(entry, position)}"
            image, category = (_field(entry, key, int, where) for key in ("image_id", "category_id"))
            if image not in known:
                raise CocoError(f"{where}: there is no image {image}")
            if category not in class_of:
                raise CocoError(f"{where}: there is no category {category}; there are {', '.join(map(str, class_of))}")
            box = _box(entry, where)
            if image in place_of_image:
                places.append(place_of_image[image])
                labels.append(class_of[category])
                crowd.append(bool(entry.get("iscrowd", 0)))
                boxes.append(box)
        place = np.array(places, np.int64)
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        area = (corners[:, 2:] > 0).all(1)
        corners[:, 2:] += corners[:, :2]
        clipped = np.clip(corners, 0, np.tile(self._sizes[place], 2))
        inside = (clipped[:, 2:] > clipped[:, :2]).all(1)
        kept = np.flatnonzero(area & inside)
        kept = kept[np.argsort(place[kept], kind="stable")]
        self._boxes = clipped[kept].astype(np.float32)
        self._labels = np.array(labels, np.int32)[kept]
        self._crowd = np.array(crowd, bool)[kept]
        self._starts = np.searchsorted(place[kept], np.arange(len(self) + 1))
        objects = np.bincount(self._labels[~self._crowd], minlength=len(self.class_names)).tolist()
        return CocoSummary(
            images=len(self),
            empty_images=len(self) - len(np.unique(place[kept][~self._crowd])),
            missing_images=len(missing),
            objects=sum(objects),
            crowd_regions=int(self._crowd.sum()),
            clipped_boxes=int((area & inside & (clipped != corners).any(1)).sum()),
            outside_boxes=int((area & ~inside).sum()),
            zero_area_boxes=int((~area).sum()),
            objects_per_class=dict(zip(self.class_names, objects, strict=True)),
            first_missing=tuple(missing[:NAMED]),
        )


def read_image(path: Path) -> np.ndarray:
    """A file's pixels as stored, uint8 [H, W, 3] RGB.

    Raises:
        ImageReadError: the file cannot be read or decoded.
    """
    try:
        content = np.fromfile(path, np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if content.size else None
    except (OSError, cv2.error) as error:
        raise ImageReadError(f"{path}: {error}") from error
    if image is None:
        raise ImageReadError(f"{path}: no image, or a damaged one ({content.size} bytes)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def count_unreadable(data: CocoData) -> list[str]:
    """What is wrong with each image that cannot be read; decodes all of them."""
    found = []
    for index in range(len(data)):
        try:
            data.read(index)
        except ImageReadError as error:
            found.append(str(error))
    return found


def _load(path: Path) -> dict[str, list[Any]]:
    def without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
        # Outlines are most of a file, and would be most of the memory.
        entry.pop("segmentation", None)
        return entry

    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file, object_hook=without_outlines)
    except OSError as error:
        raise CocoError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise CocoError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CocoError(f"{path}: holds a {type(content).__name__}, not an object with images, annotations, categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise CocoError(f"{path}: has no list {key!r}; COCO's format has images, annotations and categories")
    return content


def _label(entry: Any, position: int) -> str:
    """How an entry is called in a message: by its id, or by its place where it has none."""
    if isinstance(entry, dict) and "id" in entry:
        return repr(entry["id"])
    return f"at position {position}"


def _field(entry: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(entry, dict):
        raise CocoError(f"{where}: is {entry!r}, not an object")
    value = entry.get(key)
    if type(value) is not kind:
        raise CocoError(f"{where}: {key} is {value!r}; it must be of type {kind.__name__}")
    return value


def _box(entry: dict[str, Any], where: str) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite_number, box)):
        raise CocoError(f"{where}: bbox is {box!r}; it must be x, y, width, height in pixels")
    return box


def _is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.data.coco instances.json images --decode`."""
    parser = argparse.ArgumentParser(prog="python -m training.data.coco", description=__doc__)
    parser.add_argument("annotations", type=Path, help="COCO's JSON file")
    parser.add_argument("images", type=Path, help="the folder that its file names are relative to")
    parser.add_argument("--decode", action="store_true", help="also decode every image")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args(arguments)
    try:
        data = CocoData(options.annotations, options.images)
    except CocoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    unreadable = count_unreadable(data) if options.decode else []
    if options.json:
        print(json.dumps(dataclasses.asdict(data.summary) | ({"unreadable": unreadable} if options.decode else {})))
    else:
        print(data.summary)
        for name, count in data.summary.objects_per_class.items():
            print(f"  {name}: {count}")
        for line in unreadable:
            print(f"unreadable: {line}")
    return 1 if unreadable else 0


if __name__ == "__main__":
    sys.exit(main())

"""VisDrone's annotations of images, as COCO's format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.data.pictures import ImageReadError, read_image

CLASSES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
"""Categories 1 to 10, under VisDrone's own ids."""

IGNORED_REGION, OTHERS = 0, 11
"""Categories whose detections the benchmark does not judge, whatever their class."""

FIELDS = 8
"""x, y, width, height, score, category, truncation, occlusion; in whole pixels. Score 0 = not judged."""

SUFFIXES = (".jpg", ".jpeg", ".png")


class VisdroneError(ValueError):
    """A folder or an annotation file that is not VisDrone's; the message names file and line."""


@dataclass
class Counts:
    """What was converted.

    Attributes:
        images: with an annotation file of their own.
        objects: boxes to be found.
        ignored_regions: lines of category 0.
        others: lines of category 11.
        not_judged: lines of a class with score 0.
        zero_area: lines without width or height, left out.
        images_without_annotations: left out.
        annotations_without_image: left out.
    """

    images: int = 0
    objects: int = 0
    ignored_regions: int = 0
    others: int = 0
    not_judged: int = 0
    zero_area: int = 0
    images_without_annotations: int = 0
    annotations_without_image: int = 0


def convert(folder: Path) -> tuple[dict[str, Any], Counts]:
    """COCO instances of a VisDrone-DET folder (`images` and `annotations` in it), and counts.

    The benchmark judges no detection in an ignored region or on an object of category "others", so both become a
    crowd region of each class; an object with score 0 becomes a crowd region of its own class. Truncation (0 or 1)
    and occlusion (0 to 2) are kept as further keys of an annotation. File names are relative to `folder/images`.

    Raises:
        VisdroneError: no such folders, no image with annotations, or a line that is not of the format.
        ImageReadError: an image that cannot be decoded.
    """
    pictures, files = _files(folder / "images", SUFFIXES), _files(folder / "annotations", (".txt",))
    counts = Counts(
        images_without_annotations=len(pictures.keys() - files.keys()),
        annotations_without_image=len(files.keys() - pictures.keys()),
    )
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name in sorted(pictures.keys() & files.keys()):
        height, width = read_image(pictures[name]).shape[:2]
        number = len(images) + 1
        images.append({"id": number, "file_name": pictures[name].name, "width": width, "height": height})
        for entry in _annotations(files[name], counts):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
    if not images:
        raise VisdroneError(f"{folder}: no image of {folder / 'images'} has a .txt file in {folder / 'annotations'}")
    counts.images = len(images)
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}, counts


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The folder's files of a kind by their name without the suffix."""
    if not folder.is_dir():
        raise VisdroneError(f"{folder} is no folder; VisDrone's data has the folders images and annotations")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes}


def _annotations(path: Path, counts: Counts) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        x, y, width, height, score, category, truncation, occlusion = _values(line, f"{path}:{number}")
        if width < 1 or height < 1:
            counts.zero_area += 1
            continue
        crowd = True
        classes: tuple[int, ...] = (category,)
        if category in (IGNORED_REGION, OTHERS):
            classes = tuple(range(1, len(CLASSES) + 1))
            counts.ignored_regions += category == IGNORED_REGION
            counts.others += category == OTHERS
        elif score == 0:
            counts.not_judged += 1
        else:
            crowd = False
            counts.objects += 1
        for one in classes:
            yield {
                "category_id": one,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": int(crowd),
                "segmentation": [],
                "truncation": truncation,
                "occlusion": occlusion,
            }


def _values(line: str, where: str) -> list[int]:
    # Some of the files end their lines with a comma.
    parts = line.strip().rstrip(",").split(",")
    try:
        values = [int(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != FIELDS:
        raise VisdroneError(
            f"{where}: {line.strip()!r} is not x,y,width,height,score,category,truncation,occlusion in whole numbers"
        )
    if not IGNORED_REGION <= values[5] <= OTHERS:
        raise VisdroneError(f"{where}: the category is {values[5]}; VisDrone's are {IGNORED_REGION} to {OTHERS}")
    return values


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.data.visdrone VisDrone2019-DET-train instances_train.json`."""
    parser = argparse.ArgumentParser(prog="python -m training.data.visdrone", description=__doc__)
    parser.add_argument("folder", type=Path, help="has the folders images and annotations")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    options = parser.parse_args(arguments)
    try:
        content, counts = convert(options.folder)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(content))
    except (VisdroneError, ImageReadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}: " + ", ".join(f"{value} {name}" for name, value in asdict(counts).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

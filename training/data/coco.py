"""Images with boxes in COCO's format: checked once, counted, and read one at a time."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.annotated import Annotated
from training.data.coco_file import CocoError, CocoFile, ImageEntry, read_coco
from training.data.pictures import ImageReadError, exif_orientation, read_image

NAMED = 3
"""Of many files with the same fault, how many are named."""


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
        root_classes: without objects, and the supercategory of other classes: exports add such a root, and it
            becomes a class like any other.
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
    root_classes: tuple[str, ...] = ()

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
        text += f" (the first: {', '.join(self.first_missing)})" if self.first_missing else ""
        unused = [name for name, count in self.objects_per_class.items() if not count]
        text += f"; classes without any object: {', '.join(unused)}" if unused else ""
        for name in self.root_classes:
            text += f"; {name} is only the root of others: training.data.prepare leaves it out"
        return text


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
        self._folder = Path(images)
        file = read_coco(Path(annotations), self._folder)
        if file.unlisted:
            raise CocoError(file.unlisted)
        if file.repeated:
            raise CocoError(f"{file.repeated}; number them anew, as training.data.prepare does")
        self._file = file.path
        self.category_ids, self.class_names = file.category_ids, file.class_names
        entries = self._present(file)
        self.image_ids = np.array([entry.id for entry in entries], np.int64)
        self._names = [entry.file_name for entry in entries]
        self._sizes = np.array([[entry.width, entry.height] for entry in entries], np.int32)
        self.summary = self._take_annotations(file)

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
        width, height = self._sizes[index].tolist()
        image = read_as_annotated(self.path(index), width, height, self._file)
        return Annotated(image, *self.objects(index))

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes [n, 4] xyxy in pixels, labels [n] and regions to ignore [k, 4] of image `index`."""
        chosen = slice(self._starts[index], self._starts[index + 1])
        crowd = self._crowd[chosen]
        boxes, labels = self._boxes[chosen], self._labels[chosen]
        return boxes[~crowd], labels[~crowd].astype(np.int64), np.unique(boxes[crowd], axis=0)

    def _present(self, file: CocoFile) -> list[ImageEntry]:
        """The images whose file is there, in the file's order."""
        present = [entry for entry in file.images if entry.present]
        if not present:
            raise CocoError(
                f"{file.path}: none of its {len(file.images)} images is in {self._folder}: "
                f"{file.images[0].file_name}, say"
            )
        return present

    def _take_annotations(self, file: CocoFile) -> CocoSummary:
        """Keeps what lies in the images, sorted by image, and counts the rest."""
        there = np.array([entry.present for entry in file.images], bool)
        taken = there[file.places]
        place = (np.cumsum(there) - 1)[file.places[taken]]
        labels, crowd = file.labels[taken].astype(np.int32), file.crowd[taken]
        corners = file.boxes[taken]
        area = (corners[:, 2:] > 0).all(1)
        corners[:, 2:] += corners[:, :2]
        clipped = np.clip(corners, 0, np.tile(self._sizes[place], 2))
        inside = (clipped[:, 2:] > clipped[:, :2]).all(1)
        kept = np.flatnonzero(area & inside)
        kept = kept[np.argsort(place[kept], kind="stable")]
        self._boxes = clipped[kept].astype(np.float32)
        self._labels = labels[kept]
        self._crowd = crowd[kept]
        self._starts = np.searchsorted(place[kept], np.arange(len(self) + 1))
        objects = np.bincount(self._labels[~self._crowd], minlength=len(self.class_names)).tolist()
        return CocoSummary(
            images=len(self),
            empty_images=len(self) - len(np.unique(place[kept][~self._crowd])),
            missing_images=int((~there).sum()),
            objects=sum(objects),
            crowd_regions=int(self._crowd.sum()),
            clipped_boxes=int((area & inside & (clipped != corners).any(1)).sum()),
            outside_boxes=int((area & ~inside).sum()),
            zero_area_boxes=int((~area).sum()),
            objects_per_class=dict(zip(self.class_names, objects, strict=True)),
            first_missing=tuple(entry.file_name for entry in file.images if not entry.present)[:NAMED],
            root_classes=tuple(
                name
                for name, count in zip(self.class_names, objects, strict=True)
                if not count and name in file.parents
            ),
        )


def read_as_annotated(path: Path, width: int, height: int, annotations: Path) -> np.ndarray:
    """A file's pixels as stored, uint8 [height, width, 3] RGB.

    Raises:
        ImageReadError: the file cannot be decoded, or its size is not that of the annotations.
    """
    image = read_image(path)
    if image.shape[:2] != (height, width):
        turned = ""
        if image.shape[:2] == (width, height) and (orientation := exif_orientation(path)) > 1:
            turned = (
                f"; its EXIF orientation is {orientation}, and its boxes seem drawn on the turned image: "
                "store the pixels turned (exiftran -a, mogrify -auto-orient)"
            )
        raise ImageReadError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} pixels, but {annotations} says {width}x{height}{turned}"
        )
    return image


def count_turned(data: CocoData) -> dict[int, int]:
    """How many files have an EXIF orientation other than 1, by orientation; reads every file's header."""
    found = Counter(exif_orientation(data.path(index)) for index in range(len(data)))
    return {orientation: found[orientation] for orientation in sorted(found) if orientation > 1}


def turned_text(turned: dict[int, int]) -> str:
    """What `count_turned` found, in words."""
    kinds = ", ".join(f"{count} with {orientation}" for orientation, count in turned.items())
    return (
        f"{sum(turned.values())} images have an EXIF orientation ({kinds}): it is not applied, boxes count in stored "
        "pixels; if they were drawn on the turned images, store the pixels turned (exiftran -a, mogrify -auto-orient)"
    )


def count_unreadable(data: CocoData) -> list[str]:
    """What is wrong with each image that cannot be read; decodes all of them."""
    found = []
    for index in range(len(data)):
        try:
            data.read(index)
        except ImageReadError as error:
            found.append(str(error))
    return found


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
    turned = count_turned(data)
    unreadable = count_unreadable(data) if options.decode else []
    if options.json:
        counts = dataclasses.asdict(data.summary) | {"exif_orientations": turned}
        print(json.dumps(counts | ({"unreadable": unreadable} if options.decode else {})))
    else:
        print(data.summary)
        for name, count in data.summary.objects_per_class.items():
            print(f"  {name}: {count}")
        if turned:
            print(turned_text(turned))
        for line in unreadable:
            print(f"unreadable: {line}")
    return 1 if unreadable else 0


if __name__ == "__main__":
    sys.exit(main())

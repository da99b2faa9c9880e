"""Images to evaluate on, each with what is truly in it: aisle scenes, or any data set in COCO's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from anydepth_perception.aisle import CLASS_NAMES, AisleFrame
from training.data.aisle import IMAGE_SIZE, SPLITS, render_image
from training.data.coco import NAMED, read_as_annotated
from training.data.coco_file import CocoError, CocoFile, read_coco
from training.data.pictures import ImageReadError


class EvaluationDataError(ValueError):
    """Annotations or images that cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Truth:
    """What is in one image.

    Attributes:
        image_id: as in the annotations.
        width: of the image, in pixels.
        height: of the image, in pixels.
        boxes_xywh: float64 [n, 4], left, top, width and height in pixels.
        class_ids: int64 [n].
        areas: float64 [n], square pixels; decides whether an object is small, medium or large.
        crowd: bool [n]; such a region is no object to be found, and what is found in it is no mistake.
    """

    image_id: int
    width: int
    height: int
    boxes_xywh: np.ndarray
    class_ids: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


class EvaluationImages(Protocol):
    """A data set, image by image."""

    description: str
    class_names: Sequence[str]

    def __len__(self) -> int:
        """Number of images."""
        ...

    def load(self, index: int) -> tuple[np.ndarray, Truth]:
        """Image `index`, uint8 [H, W, 3] RGB, and what is in it."""
        ...


class AisleImages:
    """The first images of a split of the aisle scenes, rendered as they are asked for."""

    class_names: Sequence[str] = CLASS_NAMES

    def __init__(self, split: str, count: int, size: tuple[int, int] = IMAGE_SIZE) -> None:
        """`size` is (width, height).

        Raises:
            EvaluationDataError: there is no such split, or it has fewer images.
        """
        if split not in SPLITS:
            raise EvaluationDataError(f"there is no split {split!r}; the splits are {', '.join(sorted(SPLITS))}")
        if not 1 <= count <= len(SPLITS[split]):
            raise EvaluationDataError(f"cannot take {count} images of {split}; it has 1 to {len(SPLITS[split])}")
        self.description = f"aisle {split}, {count} images"
        self._split = split
        self._count = count
        self._size = size

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    def load(self, index: int) -> tuple[np.ndarray, Truth]:
        """Renders image `index`; its id is `index` + 1."""
        frame = render_image(self._split, index, self._size)
        return frame.image, aisle_truth(frame, index + 1)


def aisle_truth(frame: AisleFrame, image_id: int) -> Truth:
    """The objects of a rendered frame; those to be ignored as crowds."""
    boxes = np.concatenate([frame.boxes, frame.ignore_boxes]).astype(np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return Truth(
        image_id=image_id,
        width=frame.image.shape[1],
        height=frame.image.shape[0],
        boxes_xywh=boxes,
        class_ids=np.concatenate([frame.class_ids, frame.ignore_class_ids]).astype(np.int64),
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.arange(len(boxes)) >= len(frame.boxes),
    )


class CocoImages:
    """A data set in COCO's format: a JSON file of annotations and a folder of images.

    The annotations are checked by the reader that training uses, but count as they are, as in the official evaluation:
    no box is cut or left out, and annotations of images that are not listed say nothing.
    """

    def __init__(self, annotations: Path, folder: Path, class_names: Sequence[str], count: int | None = None) -> None:
        """Reads the annotations; images are read as they are asked for.

        Args:
            annotations: the JSON file. Its category ids may have gaps; categories are told by their names.
            folder: where the images lie, by the file names of the annotations.
            class_names: of the network, by class id.
            count: take the first images only, in the order of their ids.

        Raises:
            EvaluationDataError: the file cannot be used, one of the images is not there, or an annotation is of a
                category that the network lacks.
        """
        self.class_names = class_names
        self._folder, self._file = folder, annotations
        try:
            file = read_coco(annotations, folder)
        except CocoError as error:
            raise EvaluationDataError(str(error)) from error
        if file.repeated:
            raise EvaluationDataError(f"{file.repeated}; number them anew, as training.data.prepare does")
        chosen = sorted(range(len(file.images)), key=lambda place: file.images[place].id)[:count]
        missing = [file.images[place].file_name for place in chosen if not file.images[place].present]
        if missing:
            raise EvaluationDataError(
                f"{annotations}: {len(missing)} of {len(chosen)} images are not in {folder}: "
                f"{', '.join(missing[:NAMED])}{' ...' if len(missing) > NAMED else ''}; "
                "take them out of the file, or give their folder"
            )
        self._names = [file.images[place].file_name for place in chosen]
        self._truths = _truths(file, chosen, class_names)
        self.description = f"{annotations.name}, {len(self)} images"

    def __len__(self) -> int:
        """Number of images."""
        return len(self._names)

    def load(self, index: int) -> tuple[np.ndarray, Truth]:
        """Reads image `index`.

        Raises:
            EvaluationDataError: its file is missing, no image, or not of the annotated size.
        """
        truth = self._truths[index]
        try:
            path = self._folder / self._names[index]
            return read_as_annotated(path, truth.width, truth.height, self._file), truth
        except ImageReadError as error:
            raise EvaluationDataError(str(error)) from error


def _truths(file: CocoFile, chosen: Sequence[int], class_names: Sequence[str]) -> list[Truth]:
    """What is in each of the chosen images, under the network's class ids."""
    known = {name: index for index, name in enumerate(class_names)}
    used = set(file.labels.tolist())
    lacking = [name for index, name in enumerate(file.class_names) if name not in known and index in used]
    if lacking:
        names = ", ".join(map(repr, lacking))
        raise EvaluationDataError(
            f"{file.path}: {'category' if len(lacking) == 1 else 'categories'} {names} "
            f"{'is' if len(lacking) == 1 else 'are'} none of the network's: {', '.join(class_names)}; "
            "name the classes alike in training and validation"
        )
    class_ids = np.array([known.get(name, -1) for name in file.class_names], np.int64)[file.labels]
    order = np.argsort(file.places, kind="stable")
    starts = np.searchsorted(file.places[order], np.arange(len(file.images) + 1))
    truths = []
    for place in chosen:
        entry, rows = file.images[place], order[starts[place] : starts[place + 1]]
        truths.append(
            Truth(
                image_id=entry.id,
                width=entry.width,
                height=entry.height,
                boxes_xywh=file.boxes[rows],
                class_ids=class_ids[rows],
                areas=file.areas[rows],
                crowd=file.crowd[rows],
            )
        )
    return truths


def aisle_images(split: str, count: int, class_names: Sequence[str]) -> AisleImages:
    """The first `count` aisle scenes of a split, for a network of these classes.

    Raises:
        EvaluationDataError: the network knows other classes, there is no such split, or it has fewer images.
    """
    if tuple(class_names) != tuple(CLASS_NAMES):
        raise EvaluationDataError(
            f"the network knows {', '.join(class_names)}; aisle scenes have {', '.join(CLASS_NAMES)}: give --coco"
        )
    return AisleImages(split, count)

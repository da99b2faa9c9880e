"""Images to evaluate on, each with what is truly in it: aisle scenes, or any data set in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from anydepth_perception.aisle import CLASS_NAMES, AisleFrame
from training.data.aisle import IMAGE_SIZE, SPLITS, render_image
from training.data.coco import ImageReadError, read_image


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

    The annotations count as they are, as in the official evaluation; `training.data.coco` checks and cuts them.
    """

    def __init__(self, annotations: Path, folder: Path, class_names: Sequence[str], count: int | None = None) -> None:
        """Reads the annotations; images are read as they are asked for.

        Args:
            annotations: the JSON file. Its category ids may have gaps; categories are told by their names.
            folder: where the images lie, by the file names of the annotations.
            class_names: of the network, by class id.
            count: take the first images only, in the order of their ids.

        Raises:
            EvaluationDataError: the file is not such a JSON, has no images, or a category that the network lacks.
        """
        self.class_names = class_names
        self._folder = folder
        try:
            document: dict[str, Any] = json.loads(annotations.read_text(encoding="utf-8"))
            self._images = sorted(document["images"], key=lambda image: image["id"])[:count]
            self._truths = _truths(document, self._images, class_names, annotations)
        except OSError as error:
            raise EvaluationDataError(f"{annotations}: cannot be read: {error.strerror}") from error
        except (TypeError, KeyError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise EvaluationDataError(f"{annotations}: no COCO annotations: {error!r}") from error
        if not self._images:
            raise EvaluationDataError(f"{annotations}: lists no images")
        self.description = f"{annotations.name}, {len(self._images)} images"

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def load(self, index: int) -> tuple[np.ndarray, Truth]:
        """Reads image `index`.

        Raises:
            EvaluationDataError: its file is missing or no image.
        """
        path = self._folder / self._images[index]["file_name"]
        try:
            return read_image(path), self._truths[index]
        except ImageReadError as error:
            raise EvaluationDataError(str(error)) from error


def _truths(
    document: dict[str, Any], images: Sequence[dict[str, Any]], class_names: Sequence[str], file: Path
) -> list[Truth]:
    classes: dict[int, int] = {}
    for category in document["categories"]:
        if category["name"] not in class_names:
            raise EvaluationDataError(
                f"{file}: category {category['name']!r} is none of the network's: {', '.join(class_names)}"
            )
        classes[category["id"]] = list(class_names).index(category["name"])
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for annotation in document["annotations"]:
        if annotation["category_id"] not in classes:
            raise EvaluationDataError(
                f"{file}: annotation {annotation.get('id')} has the category id {annotation['category_id']}, "
                f"listed are {', '.join(map(str, sorted(classes)))}"
            )
        if annotation["image_id"] in by_image:
            by_image[annotation["image_id"]].append(annotation)
    return [
        Truth(
            image_id=image["id"],
            width=image["width"],
            height=image["height"],
            boxes_xywh=np.array([each["bbox"] for each in found], np.float64).reshape(-1, 4),
            class_ids=np.array([classes[each["category_id"]] for each in found], np.int64),
            areas=np.array([each.get("area", each["bbox"][2] * each["bbox"][3]) for each in found], np.float64),
            crowd=np.array([bool(each.get("iscrowd", 0)) for each in found], bool),
        )
        for image in images
        for found in [by_image[image["id"]]]
    ]


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

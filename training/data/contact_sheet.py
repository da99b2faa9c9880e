"""Pictures with their boxes side by side on one sheet, to see at a glance whether the labels are right."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from training.data.labels import Picture
from training.data.pictures import read_image

COLUMNS, ROWS = 5, 4
CELL = 320
"""Side of one picture's place, in pixels."""

IGNORED = (170, 170, 170)


def chosen_pictures(pictures: Sequence[Picture], count: int = COLUMNS * ROWS, seed: int = 0) -> list[Picture]:
    """Pictures for a sheet: one of each class, the rarest first, then any; drawn from `seed`."""
    order = [pictures[place] for place in np.random.default_rng(seed).permutation(len(pictures))]
    having: dict[str, list[Picture]] = {}
    for picture in order:
        for name in {label.name for label in picture.labels}:
            having.setdefault(name, []).append(picture)
    first = [having[name][0] for name in sorted(having, key=lambda name: (len(having[name]), name))]
    return list({id(picture): picture for picture in [*first, *order]}.values())[:count]


def contact_sheet(pictures: Sequence[Picture], class_names: Sequence[str]) -> np.ndarray:
    """The pictures in rows of five, uint8 [H, W, 3] RGB, boxes in a colour a class, ignored ones grey."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = np.full((rows * CELL, min(len(pictures), COLUMNS) * CELL, 3), 32, np.uint8)
    for place, picture in enumerate(pictures):
        drawn = _drawn(picture, class_names)
        y, x = place // COLUMNS * CELL, place % COLUMNS * CELL
        sheet[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    return sheet


def _drawn(picture: Picture, class_names: Sequence[str]) -> np.ndarray:
    image = read_image(picture.path)
    scale = (CELL - 4) / max(image.shape[:2])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for label in picture.labels:
        colour = IGNORED if label.ignored else _colour(class_names.index(label.name), len(class_names))
        x, y, width, height = (round(value * scale) for value in label.box)
        cv2.rectangle(image, (x, y), (x + width, y + height), colour, 1)
        place = (max(x, 0), max(y - 2, 9))
        cv2.putText(image, label.name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1, cv2.LINE_AA)
    return image


def _colour(index: int, count: int) -> tuple[int, int, int]:
    """Colours as far from each other as `count` allows, RGB."""
    hsv = np.array([[[round(179 * index / max(count, 1)), 255, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue

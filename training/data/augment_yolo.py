"""YOLO's augmentation: mosaic, shift and scale, mixup, colour, a mirror."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.data.annotated import Annotated, Placement, Visibility, mirror, paint, window_of
from training.data.colour import shift_hsv
from training.data.settings import YoloAugmentation

PAD_VALUE = 114
VISIBILITY = Visibility(min_side=2.0, min_share=0.1, max_aspect=100.0)
MIXUP_BETA = 32.0

Draw = Callable[[np.random.Generator], Annotated]
"""Another image of the data set, drawn at random."""


def augment_yolo(
    source: Annotated,
    another: Draw,
    image_size: tuple[int, int],
    settings: YoloAugmentation,
    random: np.random.Generator,
    *,
    plain: bool,
) -> Annotated:
    """An image as YOLO trains on it.

    Args:
        source: image and boxes as stored.
        another: draws the other images of mosaic and mixup.
        image_size: (height, width) of the result.
        settings: probabilities and ranges.
        random: draws everything.
        plain: without mosaic and mixup.
    """
    result = _composed(source, another, image_size, settings, random, plain)
    if not plain and random.random() < settings.mixup:
        result = mix(result, _composed(another(random), another, image_size, settings, random, plain), random)
    turn, saturation, value = random.uniform(-1, 1, 3) * (settings.hue, settings.saturation, settings.value)
    shift_hsv(result.image, turn, 1 + saturation, 1 + value)
    return mirror(result) if random.random() < settings.flip else result


def mix(first: Annotated, second: Annotated, random: np.random.Generator) -> Annotated:
    """Two images of one size laid over each other, about half and half, with the objects of both."""
    share = random.beta(MIXUP_BETA, MIXUP_BETA)
    image = first.image * np.float32(share) + second.image * np.float32(1 - share)
    return _joined(image.round().astype(np.uint8), [first, second])


def _composed(
    source: Annotated,
    another: Draw,
    image_size: tuple[int, int],
    settings: YoloAugmentation,
    random: np.random.Generator,
    plain: bool,
) -> Annotated:
    """One image, or a mosaic of four, shifted and scaled."""
    if not plain and random.random() < settings.mosaic:
        sources = [source, *(another(random) for _ in range(3))]
        return mosaic(sources, image_size, settings, random)
    gain, shift = _draw_affine(image_size, settings, random)
    canvas = np.full((*image_size, 3), PAD_VALUE, np.uint8)
    fitted = _fitted(source, image_size)
    corner = (np.array(image_size[::-1]) - fitted) / 2
    return paint(canvas, source, _placement(source, image_size, fitted, corner, image_size, gain, shift), VISIBILITY)


def mosaic(
    sources: list[Annotated],
    image_size: tuple[int, int],
    settings: YoloAugmentation,
    random: np.random.Generator,
) -> Annotated:
    """Four images that meet in one point, on a field twice the input's sides; the input shows a part of that field.

    The point lies in the middle half of the field. Each image is as large as it would be alone.
    """
    field = (2 * image_size[0], 2 * image_size[1])
    meeting = random.uniform(0.25, 0.75, 2) * field[::-1]
    gain, shift = _draw_affine(image_size, settings, random)
    canvas = np.full((*image_size, 3), PAD_VALUE, np.uint8)
    parts = []
    for place, source in enumerate(sources):
        fitted = _fitted(source, image_size)
        corner = meeting - fitted * ((place + 1) % 2, 1 - place // 2)
        parts.append(
            paint(canvas, source, _placement(source, image_size, fitted, corner, field, gain, shift), VISIBILITY)
        )
    return _joined(canvas, parts)


def _draw_affine(
    image_size: tuple[int, int], settings: YoloAugmentation, random: np.random.Generator
) -> tuple[float, np.ndarray]:
    """Gain, and shift in pixels of the input."""
    gain = random.uniform(1 - settings.scale, 1 + settings.scale)
    return gain, random.uniform(-settings.translate, settings.translate, 2) * image_size[::-1]


def _fitted(source: Annotated, image_size: tuple[int, int]) -> np.ndarray:
    """Width and height of the image when it fits into the input with its aspect ratio kept."""
    height, width = source.image.shape[:2]
    return np.array([width, height]) * min(image_size[0] / height, image_size[1] / width)


def _placement(
    source: Annotated,
    image_size: tuple[int, int],
    fitted: np.ndarray,
    corner: np.ndarray,
    field: tuple[int, int],
    gain: float,
    shift: np.ndarray,
) -> Placement:
    """Where an image goes in the input that takes up `fitted` from `corner` on of a field of (height, width).

    The field's centre goes to the input's, moved by the shift.
    """
    origin = np.array(image_size[::-1]) / 2 + shift - gain * np.array(field[::-1]) / 2
    scale = gain * fitted / source.image.shape[1::-1]
    offset = gain * corner + origin
    low = gain * np.maximum(corner, 0) + origin
    high = gain * np.minimum(corner + fitted, field[::-1]) + origin
    window = window_of((low[0], low[1], high[0], high[1]), image_size)
    return Placement(float(scale[0]), float(scale[1]), float(offset[0]), float(offset[1]), window)


def _joined(image: np.ndarray, parts: list[Annotated]) -> Annotated:
    return Annotated(
        image,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignored for part in parts]),
    )

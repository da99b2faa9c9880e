"""RT-DETR's augmentation: colour, room around the image, a crop that keeps objects, a mirror, a resize."""

from __future__ import annotations

import cv2
import numpy as np

from training.data.annotated import Annotated, Placement, Visibility, mirror, paint, window_of
from training.data.colour import distort
from training.data.settings import DetrAugmentation

OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""IoU with the crop that at least one object must reach; one is drawn, or that the image stays whole."""

TRIALS = 40
ROUNDS = 50
VISIBILITY = Visibility(min_side=1.0)

View = tuple[float, float, float, float]
"""xyxy in pixels of the image: what will fill the network's input. It may reach out of the image."""


def augment_detr(
    source: Annotated,
    image_size: tuple[int, int],
    resize: str,
    settings: DetrAugmentation,
    random: np.random.Generator,
    *,
    plain: bool,
) -> Annotated:
    """An image as RT-DETR trains on it.

    Args:
        source: image and boxes as stored.
        image_size: (height, width) of the result.
        resize: `stretch`, as in RT-DETR, or `letterbox`, which keeps the aspect ratio; what is beyond is black.
        settings: probabilities and ranges.
        random: draws everything.
        plain: mirror only.
    """
    height, width = source.image.shape[:2]
    view: View = (0.0, 0.0, float(width), float(height))
    if not plain:
        if random.random() < settings.zoom_out:
            view = zoomed_out(view, settings.max_zoom_out, random)
        if len(source.boxes) and random.random() < settings.crop:
            view = cropped(view, source.boxes, random)
    placement = place(view, (height, width), image_size, resize)
    kept = _centre_inside(source.boxes, np.array([view], np.float32))[0]
    seen = Annotated(source.image, source.boxes[kept], source.labels[kept], source.ignored)
    result = paint(np.zeros((*image_size, 3), np.uint8), seen, placement, VISIBILITY)
    if not plain:
        x0, y0, x1, y1 = placement.window
        distort(result.image[y0:y1, x0:x1], settings.photometric, random)
    return mirror(result) if random.random() < settings.flip else result


def side_of_batch(settings: DetrAugmentation, seed: int, iteration: int) -> int | None:
    """The length of the input's sides in a batch, the same for every process; None = the recipe's size."""
    if not settings.sides:
        return None
    return int(np.random.default_rng((seed, iteration, len(settings.sides))).choice(settings.sides))


def to_side(annotated: Annotated, side: int) -> Annotated:
    """An image resized to a square by its nearest pixels, as RT-DETR resizes its batches (but without a shift)."""
    height, width = annotated.image.shape[:2]
    scale = np.array([side / width, side / height] * 2, np.float32)
    image = cv2.resize(annotated.image, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return Annotated(image, annotated.boxes * scale, annotated.labels, annotated.ignored * scale)


def zoomed_out(view: View, largest: float, random: np.random.Generator) -> View:
    """A view up to `largest` times as wide and high, with the former one anywhere inside."""
    width, height = view[2] - view[0], view[3] - view[1]
    factor = random.uniform(1.0, largest)
    left, top = random.random(2) * (width * (factor - 1), height * (factor - 1))
    return (view[0] - left, view[1] - top, view[0] - left + width * factor, view[1] - top + height * factor)


def cropped(view: View, boxes: np.ndarray, random: np.random.Generator) -> View:
    """A part of the view that holds the centre of a box at least, and overlaps with a box as drawn; or the view itself.

    Its sides are 0.3 to 1 of the view's, its aspect ratio 1/2 to 2.
    """
    size = np.array([view[2] - view[0], view[3] - view[1]])
    for _ in range(ROUNDS):
        choice = int(random.integers(len(OVERLAPS) + 1))
        if choice == len(OVERLAPS):
            return view
        sides = size * random.uniform(0.3, 1.0, (TRIALS, 2))
        corners = np.array(view[:2]) + random.random((TRIALS, 2)) * (size - sides)
        crops = np.concatenate([corners, corners + sides], axis=1)
        ratio = sides[:, 0] / sides[:, 1]
        overlap = np.where(_centre_inside(boxes, crops), _iou(crops, boxes), -1.0).max(1)
        accepted = np.flatnonzero((ratio >= 0.5) & (ratio <= 2) & (overlap >= OVERLAPS[choice]))
        if len(accepted):
            x0, y0, x1, y1 = crops[accepted[0]].tolist()
            return x0, y0, x1, y1
    return view


def place(view: View, source_size: tuple[int, int], image_size: tuple[int, int], resize: str) -> Placement:
    """Where an image of `source_size` goes when the view fills an input of `image_size`, both (height, width)."""
    scale_x = image_size[1] / (view[2] - view[0])
    scale_y = image_size[0] / (view[3] - view[1])
    if resize == "letterbox":
        scale_x = scale_y = min(scale_x, scale_y)
    # The view's centre goes to the input's.
    offset_x = image_size[1] / 2 - scale_x * (view[0] + view[2]) / 2
    offset_y = image_size[0] / 2 - scale_y * (view[1] + view[3]) / 2
    shown = (max(view[0], 0.0), max(view[1], 0.0), min(view[2], source_size[1]), min(view[3], source_size[0]))
    rectangle = (
        shown[0] * scale_x + offset_x,
        shown[1] * scale_y + offset_y,
        shown[2] * scale_x + offset_x,
        shown[3] * scale_y + offset_y,
    )
    return Placement(scale_x, scale_y, offset_x, offset_y, window_of(rectangle, image_size))


def _centre_inside(boxes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """[crops, boxes] bool."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(2)


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[first, second]."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9)

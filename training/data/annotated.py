"""An image with its objects on the way to the network, and how it is painted into the network's input."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from anydepth_perception.detection.preprocess import Preprocessor


@dataclass(frozen=True)
class Sample:
    """One image for training, at network size, with its objects.

    Attributes:
        image: uint8 [3, H, W], RGB.
        boxes: float32 [n, 4], xyxy in network pixels.
        labels: int64 [n], class indices.
        ignored: float32 [k, 4], regions that are neither object nor background.
        masks: bool [n, H, W], the pixels of each object; None where they are not known, as in all data sets today.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    masks: Tensor | None = None


class SampleError(RuntimeError):
    """A training sample that could not be made; the message begins with the path of its image, or names its scene."""


@dataclass(frozen=True)
class Annotated:
    """An image with its objects; coordinates are continuous, with pixel i covering [i, i + 1).

    Attributes:
        image: uint8 [H, W, 3], RGB.
        boxes: float32 [n, 4], xyxy in pixels.
        labels: int64 [n], class indices.
        ignored: float32 [k, 4], regions that are neither object nor background.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    def to_sample(self) -> Sample:
        """The same as tensors, with the channels first."""
        return Sample(
            torch.from_numpy(np.ascontiguousarray(self.image.transpose(2, 0, 1))),
            torch.from_numpy(self.boxes.astype(np.float32)),
            torch.from_numpy(self.labels.astype(np.int64)),
            torch.from_numpy(self.ignored.astype(np.float32)),
        )


@dataclass(frozen=True)
class Placement:
    """Where an image goes: x_canvas = x_image * scale_x + offset_x, y alike, and only what lies in the window is seen.

    Attributes:
        window: x0, y0, x1, y1 in whole pixels of the canvas, inside of the canvas and of the image's own rectangle.
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    window: tuple[int, int, int, int]

    def move(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] from image to canvas, not clipped."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        return boxes * scale + np.array([self.offset_x, self.offset_y] * 2, np.float32)


@dataclass(frozen=True)
class Visibility:
    """What must be left of a box for it to stay an object.

    Attributes:
        min_side: of the visible part, in pixels of the canvas.
        min_share: of the box's area.
        max_aspect: longer side over shorter side of the visible part.
    """

    min_side: float = 1.0
    min_share: float = 0.0
    max_aspect: float = float("inf")


def fit(source: Annotated, image_size: tuple[int, int], resize: str = "letterbox") -> Annotated:
    """An image as the network of `image_size` (height, width) sees it at run time; `resize` as in `Preprocessor`."""
    preprocess = Preprocessor(*image_size, resize=resize)
    geometry = preprocess(source.image)
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2, np.float32)
    offset = np.array([geometry.offset_x, geometry.offset_y] * 2, np.float32)
    return Annotated(
        preprocess.buffer[0], source.boxes * scale + offset, source.labels, source.ignored * scale + offset
    )


def window_of(
    rectangle: tuple[float, float, float, float], canvas_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A rectangle xyxy in whole pixels, cut to a canvas of (height, width); neighbours stay neighbours."""
    height, width = canvas_size
    x0, x1 = (min(max(round(x), 0), width) for x in (rectangle[0], rectangle[2]))
    y0, y1 = (min(max(round(y), 0), height) for y in (rectangle[1], rectangle[3]))
    return x0, y0, max(x0, x1), max(y0, y1)


def paint(canvas: np.ndarray, source: Annotated, placement: Placement, visibility: Visibility) -> Annotated:
    """Paints `source` into `canvas`, uint8 [H, W, 3]; returns the canvas with the objects that can be seen there."""
    x0, y0, x1, y1 = placement.window
    if x1 > x0 and y1 > y0:
        canvas[y0:y1, x0:x1] = _resampled(source.image, placement)
    boxes = placement.move(source.boxes)
    clipped = clip(boxes, placement.window)
    kept = _visible(boxes, clipped, visibility)
    ignored = clip(placement.move(source.ignored), placement.window)
    return Annotated(canvas, clipped[kept], source.labels[kept], ignored[(ignored[:, 2:] - ignored[:, :2] >= 1).all(1)])


def clip(boxes: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    """Boxes [n, 4] cut to a window xyxy; a box outside of it comes to have no area."""
    low, high = np.array(window[:2] * 2, np.float32), np.array(window[2:] * 2, np.float32)
    return np.clip(boxes, low, high)


def mirror(annotated: Annotated) -> Annotated:
    """The same seen in a mirror: left and right exchanged."""
    width = annotated.image.shape[1]

    def flip(boxes: np.ndarray) -> np.ndarray:
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)

    return Annotated(annotated.image[:, ::-1], flip(annotated.boxes), annotated.labels, flip(annotated.ignored))


def _visible(boxes: np.ndarray, clipped: np.ndarray, visibility: Visibility) -> np.ndarray:
    """[n] bool: whose visible part is enough."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    sides = clipped[:, 2:] - clipped[:, :2]
    shorter, longer = sides.min(1), sides.max(1)
    share = sides.prod(1) / np.maximum(area, 1e-9)
    enough = (shorter >= visibility.min_side) & (share >= visibility.min_share)
    return enough & (longer <= visibility.max_aspect * np.maximum(shorter, 1e-9))


def _resampled(image: np.ndarray, placement: Placement) -> np.ndarray:
    """What the window shows, uint8 [y1 - y0, x1 - x0, 3]."""
    x0, y0, x1, y1 = placement.window
    height, width = image.shape[:2]
    # Only the part that is seen: OpenCV's warp takes no side above 32767.
    left, right = _span(x0, x1, placement.scale_x, placement.offset_x, width)
    top, bottom = _span(y0, y1, placement.scale_y, placement.offset_y, height)
    # Pixel centres lie at i + 0.5 on both sides.
    shift_x = (left + 0.5) * placement.scale_x + placement.offset_x - x0 - 0.5
    shift_y = (top + 0.5) * placement.scale_y + placement.offset_y - y0 - 0.5
    matrix = np.array([[placement.scale_x, 0, shift_x], [0, placement.scale_y, shift_y]])
    part, size = image[top:bottom, left:right], (x1 - x0, y1 - y0)
    return cv2.warpAffine(part, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _span(first: int, last: int, scale: float, offset: float, length: int) -> tuple[int, int]:
    """The pixels [start, stop) of an image's side that canvas pixels [first, last) are made of."""
    start = int(np.floor((first - offset) / scale)) - 2
    stop = int(np.ceil((last - offset) / scale)) + 2
    start = min(max(start, 0), length - 1)
    return start, min(max(stop, start + 1), length)

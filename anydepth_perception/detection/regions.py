"""What of an image counts: a region that alone is looked at, a mask, classes, and the least size of a box."""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anydepth_perception.detection.postprocess import Detections

LEAST_SPAN = 0.01
"""Least width and height of a region, as fractions of the image."""

LEAST_WHITE = 0.5
"""Share of a box that has to be white in the mask."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 24
_MOST_MASK_BYTES = 64 << 20
_MOST_MASK_PIXELS = 33_554_432
_WHITE = 128
_MOST_SIDE = 1024
"""Pixels: boxes are no more exact than a thousandth of an image."""


class MaskError(ValueError):
    """A mask that cannot be used; the text names the file and why."""


@dataclass(frozen=True)
class Region:
    """A rectangle as fractions of an image's width and height, from the left and the top, each in [0, 1]."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in whole pixels of an image of this size; at least one pixel each way."""
        left, right = _span(self.left, self.right, width)
        top, bottom = _span(self.top, self.bottom, height)
        return left, top, right, bottom


class Mask:
    """Where detections count: white in a picture that is laid over the whole image, whatever its size."""

    def __init__(self, picture: np.ndarray) -> None:
        """`picture` is uint8 [H, W]; from 128 on a pixel is white. A large one is made smaller first."""
        scale = _MOST_SIDE / max(picture.shape)
        if scale < 1.0:
            size = [max(1, round(scale * side)) for side in reversed(picture.shape)]
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        self._height, self._width = picture.shape
        self._sums = cv2.integral((picture >= _WHITE).astype(np.uint8), sdepth=cv2.CV_32S)

    def white_share(self, boxes: np.ndarray) -> np.ndarray:
        """Share of white, float64 [n], of boxes [n, 4] xyxy in fractions of the image, to whole pixels of the mask."""
        size = np.array([self._width, self._height] * 2)
        scaled = boxes * size
        low = np.clip(np.floor(scaled[:, :2]).astype(np.int64), 0, size[:2] - 1)
        high = np.clip(np.ceil(scaled[:, 2:]).astype(np.int64), low + 1, size[:2])
        (left, top), (right, bottom) = low.T, high.T
        sums = self._sums
        white = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.asarray(white / ((right - left) * (bottom - top)))


@dataclass(frozen=True)
class Selection:
    """What counts of the images of one camera.

    Attributes:
        region: the part that the detector sees; the rest of the image does not exist for it.
        mask: a detection counts where at least half of its box is white.
        class_ids: the classes that count; None: all.
        min_box_size: pixels of the source image that the shorter side of a box has at the least.
    """

    region: Region | None = None
    mask: Mask | None = None
    class_ids: frozenset[int] | None = None
    min_box_size: float = 0.0

    @property
    def filters(self) -> bool:
        """Whether detections may be left out after they were found."""
        return self.mask is not None or self.class_ids is not None or self.min_box_size > 0.0

    def view(self, image: np.ndarray) -> np.ndarray:
        """The part of an image [H, W] or [H, W, 3] that the detector sees, without a copy."""
        if self.region is None:
            return image
        left, top, right, bottom = self.region.pixels(image.shape[1], image.shape[0])
        return image[top:bottom, left:right]

    def select(self, found: Detections, image: np.ndarray, max_detections: int) -> Detections:
        """Those of the detections in `view(image)` that count, at most `max_detections`, in pixels of `image`."""
        height, width = image.shape[:2]
        boxes = found.boxes_xyxy
        if self.region is not None:
            left, top, _, _ = self.region.pixels(width, height)
            boxes = boxes + np.array([left, top, left, top], np.float32)
        kept = np.ones(len(boxes), bool)
        if self.class_ids is not None:
            kept &= np.isin(found.class_ids, list(self.class_ids))
        if self.min_box_size > 0.0:
            kept &= (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= self.min_box_size
        if self.mask is not None:
            kept &= self.mask.white_share(boxes / np.array([width, height] * 2)) >= LEAST_WHITE
        chosen = np.flatnonzero(kept)[:max_detections]
        return Detections(boxes[chosen], found.scores[chosen], found.class_ids[chosen], found.class_names)


def read_mask(path: str) -> Mask:
    """The mask in a PNG file; one that has not changed since is not read again.

    Raises:
        MaskError: there is no such file, it is no PNG, or it is too large.
    """
    file = Path(path).expanduser()
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise MaskError(f"{path}: not a file")
        if status.st_size > _MOST_MASK_BYTES:
            raise MaskError(f"{path}: {status.st_size} bytes, a mask has at most {_MOST_MASK_BYTES}")
        return _read_mask(file, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError) as error:
        if isinstance(error, MaskError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise MaskError(f"{path}: cannot be read: {reason}") from error


@functools.lru_cache(maxsize=16)
def _read_mask(path: Path, changed_ns: int, size: int) -> Mask:
    with path.open("rb") as file:
        data = file.read(size)
    if not data.startswith(_PNG_START) or len(data) < _PNG_HEADER_BYTES:
        raise MaskError(f"{path}: not a PNG file, which a mask has to be")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if not 0 < width * height <= _MOST_MASK_PIXELS:  # looked at before it is decoded
        raise MaskError(f"{path}: {width}x{height} pixels, a mask has 1 to {_MOST_MASK_PIXELS}")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        picture = None
    if picture is None:
        raise MaskError(f"{path}: a damaged PNG file")
    return Mask(picture)


def _span(low: float, high: float, pixels: int) -> tuple[int, int]:
    first = min(round(low * pixels), pixels - 1)
    return first, max(first + 1, min(pixels, round(high * pixels)))

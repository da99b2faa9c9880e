"""Image messages as the detector reads them: their fields, what they become, and the error of those that are bad."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from anydepth_perception.detection.preprocess import ImageError

DEFAULT_MAX_PIXELS = 33_554_432
"""8192x4096: above what cameras of robots send, and decoded in a fraction of a second."""

_QUOTED = 60


class ImageMessage(Protocol):
    """Anything with the fields of sensor_msgs/Image that matter here; `step` is the bytes of a row."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes | array.array[int]


@runtime_checkable
class CompressedImageMessage(Protocol):
    """Anything with the fields of sensor_msgs/CompressedImage that matter here."""

    format: str
    data: bytes | array.array[int]


CameraMessage = ImageMessage | CompressedImageMessage
"""What a camera sends."""


class BadImageError(ImageError):
    """An image message that cannot be decoded.

    `kind` groups the same fault of different frames: encoding, size, step, data, compressed or header.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Frame:
    """A decoded image: uint8 [H,W,3] with `color` rgb or bgr, or uint8 [H,W] with `color` mono."""

    image: np.ndarray
    color: str


@dataclass(frozen=True)
class ReadOptions:
    """How images are read.

    Attributes:
        max_pixels: larger images are refused before anything is decoded.
        mono16_bits: significant bits of mono16, 16UC1 and 16-bit Bayer images, 8 to 16: 12 or 14 for many sensors.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    mono16_bits: int = 16


def quoted(text: str) -> str:
    """A text of a message for a log line: quoted, and cut where it is long."""
    return repr(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!r}... ({len(text)} characters)"


def check_size(width: int, height: int, options: ReadOptions) -> None:
    """Raises: BadImageError, where an image is empty or larger than is read."""
    if width == 0 or height == 0:
        raise BadImageError("size", f"image is empty: {width}x{height} pixels")
    if width * height > options.max_pixels:
        raise BadImageError(
            "size", f"image of {width}x{height} pixels is larger than max_image_pixels ({options.max_pixels}) allows"
        )

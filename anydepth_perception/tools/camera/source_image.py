"""What all sources of the camera share: an image, how to read it, and the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from anydepth_perception.aisle import AisleFrame


class SourceError(Exception):
    """A source that cannot be opened or read; the message names it and the reason."""


@dataclass(frozen=True)
class SourceImage:
    """An image, uint8 [H,W,3], its encoding (rgb8 or bgr8), and its true objects where they are known."""

    pixels: np.ndarray
    encoding: str
    truth: AisleFrame | None = None


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    `width` and `height` in pixels, 0 for the source's own (640x480 for aisle scenes); `rate` in images per second,
    which is how far an aisle scene moves per image and what a device is asked for; `seed` of the aisle scene;
    `loop` starts files again at their end; `prerender_s` seconds of an aisle scene are rendered before the first
    image and then played forth and back, 0 renders each image when it is due; `bag_topic` is the image topic of a
    recording that has several.
    """

    width: int = 0
    height: int = 0
    rate: float = 15.0
    seed: int = 0
    loop: bool = False
    prerender_s: float = 0.0
    bag_topic: str = ""


class Source(Protocol):
    """A sequence of images."""

    @property
    def rate_hz(self) -> float | None:
        """Images a second that the source itself has; None where it has no rate of its own."""
        return None

    def read(self) -> SourceImage | None:
        """The next image, None at the end.

        Raises:
            SourceError: the source can give no more images for a fault of its own.
        """

    def close(self) -> None:
        """Gives file or device up."""


def resized(pixels: np.ndarray, encoding: str, options: SourceOptions) -> SourceImage:
    """An image uint8 [H,W,3] in the size that `options` ask for."""
    height, width = pixels.shape[:2]
    size = (options.width or width, options.height or height)
    if size != (width, height):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return SourceImage(np.ascontiguousarray(pixels), encoding)

"""Fits a source image to the network's input: a letterbox or a stretch into a buffer that is used again."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

COLORS = ("rgb", "bgr")


class ImageError(ValueError):
    """An image that the detector cannot read; the message gives its shape and type."""


@dataclass(frozen=True)
class Geometry:
    """Where the source image lies in the network's input: x_input = x_source * scale_x + offset_x, y alike.

    Coordinates are continuous, with pixel i covering [i, i + 1) and its centre at i + 0.5. That is how boxes
    are meant (x from 0 to the image's width) and how `cv2.resize` samples, so the map has no half-pixel shift.
    The scales are those of the resize as done, to whole pixels, and may differ a little between x and y.
    """

    source_width: int
    source_height: int
    input_width: int
    input_height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


class Preprocessor:
    """Resizes images into one uint8 [1, height, width, 3] RGB buffer. One thread at a time may use it."""

    def __init__(
        self,
        height: int,
        width: int,
        *,
        resize: str = "letterbox",
        pad_value: int = 114,
        buffer: np.ndarray | None = None,
    ) -> None:
        """`resize` is `letterbox` (keeps the aspect ratio, pads with `pad_value`) or `stretch`.

        `buffer` is the memory to write into, uint8 [1, height, width, 3], where a backend wants to have it.
        """
        if resize not in ("letterbox", "stretch"):
            raise ValueError(f"resize is {resize!r}, expected letterbox or stretch")
        self.buffer = np.empty((1, height, width, 3), np.uint8) if buffer is None else buffer
        self.buffer.fill(pad_value)
        self._resize = resize
        self._pad_value = pad_value
        self._source_size: tuple[int, int] | None = None
        self._geometry = Geometry(width, height, width, height, 1.0, 1.0, 0.0, 0.0)
        self._window = self.buffer[0]
        self._scratch_rgb = np.empty((0, 0, 3), np.uint8)
        self._scratch_mono = np.empty((0, 0), np.uint8)

    def __call__(self, image: np.ndarray, color: str = "rgb") -> Geometry:
        """Writes `image` into `buffer` and says where it lies there.

        Args:
            image: uint8 [H, W, 3] in the order of `color`, or uint8 [H, W] or [H, W, 1] mono. Rows may be apart
                (a view into a larger image).
            color: `rgb` or `bgr`; mono images ignore it.

        Raises:
            ImageError: wrong type, shape or colour, or no pixels.
        """
        _check_image(image, color)
        height, width = image.shape[:2]
        if (height, width) != self._source_size:
            self._place(height, width)
        window = self._window
        size = (window.shape[1], window.shape[0])
        if image.ndim == 2 or image.shape[2] == 1:
            mono = image if image.ndim == 2 else image[:, :, 0]
            cv2.resize(mono, size, dst=self._scratch_mono, interpolation=cv2.INTER_LINEAR)
            cv2.cvtColor(self._scratch_mono, cv2.COLOR_GRAY2RGB, dst=window)
        elif color == "rgb":
            cv2.resize(image, size, dst=window, interpolation=cv2.INTER_LINEAR)
        else:
            # Swapping after the resize touches the few pixels of the input instead of the source's.
            cv2.resize(image, size, dst=self._scratch_rgb, interpolation=cv2.INTER_LINEAR)
            cv2.cvtColor(self._scratch_rgb, cv2.COLOR_BGR2RGB, dst=window)
        return self._geometry

    def _place(self, height: int, width: int) -> None:
        """Lays out the buffer for sources of this size; the padding is written here, once."""
        _, input_height, input_width, _ = self.buffer.shape
        new_height, new_width = input_height, input_width
        if self._resize == "letterbox":
            scale = min(input_height / height, input_width / width)
            new_height = max(1, min(input_height, round(height * scale)))
            new_width = max(1, min(input_width, round(width * scale)))
        top, left = (input_height - new_height) // 2, (input_width - new_width) // 2
        self.buffer.fill(self._pad_value)
        self._window = self.buffer[0, top : top + new_height, left : left + new_width]
        self._scratch_rgb = np.empty((new_height, new_width, 3), np.uint8)
        self._scratch_mono = np.empty((new_height, new_width), np.uint8)
        self._geometry = Geometry(
            source_width=width,
            source_height=height,
            input_width=input_width,
            input_height=input_height,
            scale_x=new_width / width,
            scale_y=new_height / height,
            offset_x=float(left),
            offset_y=float(top),
        )
        self._source_size = (height, width)


def _check_image(image: np.ndarray, color: str) -> None:
    if color not in COLORS:
        raise ImageError(f"color is {color!r}, expected one of {', '.join(COLORS)}")
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image is a {type(image).__name__}, expected a numpy array")
    shape = list(image.shape)
    if image.dtype != np.uint8:
        raise ImageError(f"the image is {image.dtype}{shape}, expected uint8")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ImageError(f"the image has the shape {shape}, expected [H, W, 3] or [H, W]")
    if image.size == 0:
        raise ImageError(f"the image is empty, its shape is {shape}")
    if max(image.shape[:2]) > 32767:
        raise ImageError(f"the image has the shape {shape}, more than 32767 pixels along a side")

"""Image files: their pixels as stored, and what their headers say without decoding them."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Of the files that count as pictures in a folder."""

ORIENTATION = 0x0112
"""The EXIF tag that says how to turn an image to look at it; 1 = as stored."""


class ImageReadError(ValueError):
    """An image that cannot be read, or not as annotated; the message begins with its path."""


def read_image(path: Path) -> np.ndarray:
    """A file's pixels as stored, uint8 [H, W, 3] RGB: a rotation in its EXIF data is not applied.

    Raises:
        ImageReadError: the file cannot be read or decoded.
    """
    try:
        content = np.fromfile(path, np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if content.size else None
    except (OSError, cv2.error) as error:
        raise ImageReadError(f"{path}: {error}") from error
    if image is None:
        raise ImageReadError(f"{path}: no image, or a damaged one ({content.size} bytes)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of the stored pixels, from the file's header.

    Raises:
        ImageReadError: the header cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return picture.size
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise ImageReadError(f"{path}: no image, or a damaged one ({error})") from error


def exif_orientation(path: Path) -> int:
    """How the file's EXIF data say to turn it, 1 to 8; 1 (not at all) where they say nothing or cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged header may raise nearly anything, and is found where the file is decoded
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1

"""From sensor_msgs images to arrays the detector takes, and back."""

from __future__ import annotations

import array
import sys

import numpy as np

from anydepth_perception.detection.compressed_images import decode_compressed
from anydepth_perception.detection.image_types import (
    DEFAULT_MAX_PIXELS,
    BadImageError,
    CameraMessage,
    CompressedImageMessage,
    Frame,
    ImageMessage,
    ReadOptions,
)
from anydepth_perception.detection.raw_images import ENCODINGS, decode_raw

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "ENCODINGS",
    "BadImageError",
    "CameraMessage",
    "CompressedImageMessage",
    "Frame",
    "ImageMessage",
    "ReadOptions",
    "byte_array",
    "decode",
    "fill_image",
]

_DEFAULTS = ReadOptions()


def decode(message: CameraMessage, options: ReadOptions = _DEFAULTS) -> Frame:
    """Decodes a sensor_msgs/Image or sensor_msgs/CompressedImage.

    The array of an 8-bit image with one or three channels is a view of the message's data, and so is read-only
    for whoever shares the message; the other encodings are converted.

    Raises:
        BadImageError: the message contradicts itself, or holds something that is not decoded here.
    """
    if isinstance(message, CompressedImageMessage):
        return decode_compressed(message, options)
    return decode_raw(message, options)


def fill_image(message: ImageMessage, image: np.ndarray, encoding: str) -> None:
    """Writes a contiguous uint8 [H,W,3] or [H,W] array into a sensor_msgs/Image."""
    message.height, message.width = image.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = image.strides[0]
    message.data = byte_array(image)


def byte_array(data: np.ndarray) -> array.array[int]:
    """The bytes of a contiguous array as the `array.array('B')` that rclpy takes without a look at each byte."""
    content = array.array("B")
    content.frombytes(data.data.cast("B"))
    return content

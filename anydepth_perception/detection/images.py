"""From sensor_msgs images to arrays the detector takes, without copying where the encoding allows it."""

from __future__ import annotations

import array
import sys
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from anydepth_perception.detection.preprocess import ImageError

_CHANNELS = {
    "rgb8": (3, "rgb"),
    "bgr8": (3, "bgr"),
    "rgba8": (4, "rgb"),
    "bgra8": (4, "bgr"),
    "mono8": (1, "mono"),
    "8UC1": (1, "mono"),
    "8UC3": (3, "bgr"),
    "8UC4": (4, "bgr"),
}
_YUV422 = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}
ENCODINGS = (*_CHANNELS, "mono16", *_YUV422)
"""Encodings decoded with numpy and OpenCV alone."""

_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"


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

    `kind` groups the same fault of different frames: encoding, size, step, data or compressed.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Frame:
    """A decoded image: uint8 [H,W,3] with `color` rgb or bgr, or uint8 [H,W] with `color` mono."""

    image: np.ndarray
    color: str


def decode(message: CameraMessage) -> Frame:
    """Decodes a sensor_msgs/Image or sensor_msgs/CompressedImage.

    The array of an 8-bit image with one or three channels is a view of the message's data, and so is read-only
    for whoever shares the message; the other encodings are converted.

    Raises:
        BadImageError: the message contradicts itself, or holds something that is not decoded here.
    """
    return _decode_compressed(message) if isinstance(message, CompressedImageMessage) else _decode_raw(message)


def _decode_raw(message: ImageMessage) -> Frame:
    encoding, height, width = message.encoding, message.height, message.width
    if height == 0 or width == 0:
        raise BadImageError("size", f"image is empty: {width}x{height} pixels")
    if encoding in _CHANNELS:
        channels, color = _CHANNELS[encoding]
        image = _rows(message, channels)
        if channels == 4:
            return Frame(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB), color)
        return Frame(image, color)
    if encoding == "mono16":
        high_byte = 0 if message.is_bigendian else 1
        return Frame(np.ascontiguousarray(_rows(message, 2)[..., high_byte]), "mono")
    if encoding in _YUV422:
        if width % 2:
            raise BadImageError("size", f"{encoding} needs an even width, got {width}")
        return Frame(cv2.cvtColor(_rows(message, 2), _YUV422[encoding]), "rgb")
    return _decode_with_cv_bridge(message)


def _rows(message: ImageMessage, pixel_bytes: int) -> np.ndarray:
    """View of the pixels, uint8 [H,W,pixel_bytes] ([H,W] for one byte), leaving out the padding of the rows."""
    height, width, step = message.height, message.width, message.step
    row_bytes = width * pixel_bytes
    if step < row_bytes:
        needs = f"{width} pixels of {message.encoding} need at least {row_bytes}"
        raise BadImageError("step", f"step {step} is too small: {needs}")
    # The last row may come without its padding.
    needed = step * (height - 1) + row_bytes
    if len(message.data) < needed:
        raise BadImageError(
            "data", f"data holds {len(message.data)} bytes, but {width}x{height} {message.encoding} with step {step} "
            f"needs {needed}"
        )
    if len(message.data) > step * height:
        raise BadImageError(
            "data", f"data holds {len(message.data)} bytes, more than height {height} x step {step} = {step * height}"
        )
    data = np.frombuffer(message.data, np.uint8)
    shape, strides = (height, width, pixel_bytes), (step, pixel_bytes, 1)
    image = np.lib.stride_tricks.as_strided(data, shape, strides, writeable=False)
    return image[..., 0] if pixel_bytes == 1 else image


def _decode_with_cv_bridge(message: ImageMessage) -> Frame:
    """The encodings beyond `ENCODINGS`, where the ROS distribution brings cv_bridge."""
    refusal = f"encoding {message.encoding!r} is not supported; supported are {', '.join(ENCODINGS)}"
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise BadImageError("encoding", refusal) from None
    try:
        return Frame(CvBridge().imgmsg_to_cv2(message, desired_encoding="bgr8"), "bgr")
    except Exception as error:  # cv_bridge, cv2 and numpy raise their own kinds for a malformed message
        raise BadImageError("encoding", f"{refusal}; cv_bridge: {error}") from error


def _decode_compressed(message: CompressedImageMessage) -> Frame:
    data = np.frombuffer(message.data, np.uint8)
    if data.size == 0:
        raise BadImageError("size", f"compressed image ({message.format!r}) is empty")
    if "compressedDepth" in message.format:
        raise BadImageError("encoding", f"format {message.format!r} is not supported; supported are jpeg and png")
    content = bytes(message.data)
    # Before release 5, OpenCV fills the missing part of a truncated image with grey and reports nothing.
    truncated = (
        content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN)
        if content.startswith(b"\xff\xd8")
        else content.startswith(_PNG_START) and _PNG_END not in content[-16:]
    )
    if truncated:
        raise BadImageError("compressed", f"compressed image ({message.format!r}, {data.size} bytes) is truncated")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImageError("compressed", f"compressed image ({message.format!r}) is corrupt: {error}") from error
    if image is None:
        raise BadImageError("compressed", f"compressed image ({message.format!r}, {data.size} bytes) is corrupt")
    return Frame(image, "bgr")


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

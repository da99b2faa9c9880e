"""sensor_msgs/CompressedImage to arrays: JPEG and PNG alone, and nothing is decoded whose header is not believed.

A damaged JPEG is told by libjpeg-turbo's warnings where the package `simplejpeg` is installed; OpenCV swallows them.
Damage that still is valid code, for other pixels, cannot be told: JPEG has no checksum.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from anydepth_perception.detection.image_types import (
    BadImageError,
    CompressedImageMessage,
    Frame,
    ReadOptions,
    check_size,
    quoted,
)
from anydepth_perception.detection.raw_images import BAYER, BAYER16, ENCODINGS, MONO16, demosaic, to_8_bit

try:
    import simplejpeg
except ImportError:  # optional: OpenCV decodes too, but does not tell damage
    simplejpeg = None

_JPEG_START, _PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MAX_SCANS = 100
"""Of a progressive JPEG; encoders write about ten, and each one is a pass over all pixels."""

_JPEG_PIXELS_PER_BYTE = 512
"""At most: a block of 64 pixels takes one bit at the very least, even in the first scan of a progressive JPEG."""

_PNG_BYTES_PER_BYTE = 1040
"""At most: what deflate makes of one byte."""

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type."""

_STORED_PIXELS = cv2.IMREAD_IGNORE_ORIENTATION
"""Boxes belong to the pixels as they are stored, whatever EXIF says of the picture's upright."""


@dataclass(frozen=True)
class _Format:
    """What `format` says.

    `encoding` is that of the pixels before compression, `codec` is jpeg or png; both may be empty. `is_converted` tells
    that the publisher has made colour of a mosaic.
    """

    encoding: str
    codec: str
    is_converted: bool


def decode_compressed(message: CompressedImageMessage, options: ReadOptions) -> Frame:
    """Decodes a sensor_msgs/CompressedImage.

    Raises:
        BadImageError: it is no JPEG or PNG, not the one that `format` says, too large, truncated or damaged.
    """
    named = quoted(message.format)
    declared = _parse_format(message.format)
    content = bytes(message.data)
    if not content:
        raise BadImageError("size", f"compressed image ({named}) is empty")
    codec = _codec_of(content)
    if not codec:
        raise BadImageError("compressed", f"compressed image ({named}, {len(content)} bytes) is neither JPEG nor PNG")
    if declared.codec not in ("", codec):
        raise BadImageError("compressed", f"format {named} says {declared.codec}, but the data are {codec}")
    try:
        width, height = _jpeg_size(content) if codec == "jpeg" else _png_size(content)
    except _DamageError as damage:
        raise BadImageError("compressed", f"compressed image ({named}, {len(content)} bytes) {damage}") from damage
    check_size(width, height, options)
    try:
        return _decode(content, codec, declared, options)
    except (_DamageError, cv2.error) as error:
        reason = str(error) if isinstance(error, _DamageError) else f"is corrupt: {quoted(str(error))}"
        raise BadImageError("compressed", f"compressed image ({named}, {len(content)} bytes) {reason}") from error


class _DamageError(Exception):
    """What is wrong with a file, to follow its name."""


def _parse_format(text: str) -> _Format:
    """Reads `jpeg`, `rgb8; jpeg compressed bgr8`, `bayer_rggb8; png compressed ` and the like, or an empty text.

    Raises:
        BadImageError: another codec, or an encoding that is not supported.
    """
    if not text.strip():
        return _Format("", "", False)
    before, semicolon, after = text.partition(";")
    encoding = before.strip() if semicolon else ""
    words = (after if semicolon else text).lower().split()
    codec = {"jpeg": "jpeg", "jpg": "jpeg", "image/jpeg": "jpeg", "png": "png", "image/png": "png"}.get(
        words[0] if words else ""
    )
    if codec is None:
        raise BadImageError(
            "encoding", f"format {quoted(text)} is not supported, supported are jpeg and png; "
            "`ros2 run image_transport republish` makes raw of others"
        )
    is_converted = len(words) > 2
    if encoding and not is_converted and encoding not in ENCODINGS:
        raise BadImageError("encoding", f"encoding {quoted(encoding)} of format {quoted(text)} is not supported")
    return _Format(encoding, codec, is_converted)


def _codec_of(content: bytes) -> str:
    if content.startswith(_JPEG_START):
        return "jpeg"
    return "png" if content.startswith(_PNG_START) else ""


def _decode(content: bytes, codec: str, declared: _Format, options: ReadOptions) -> Frame:
    mosaic = None if declared.is_converted else BAYER.get(declared.encoding, BAYER16.get(declared.encoding))
    if mosaic is not None or (declared.encoding in MONO16 and not declared.is_converted):
        values = _read(content, codec, cv2.IMREAD_ANYDEPTH | _STORED_PIXELS)
        grey = to_8_bit(values, options.mono16_bits) if values.dtype == np.uint16 else values
        return Frame(grey, "mono") if mosaic is None else demosaic(grey, mosaic)
    return Frame(_read(content, codec, cv2.IMREAD_COLOR | _STORED_PIXELS), "bgr")


def _read(content: bytes, codec: str, flags: int) -> np.ndarray:
    """The pixels. Raises: _DamageError, cv2.error."""
    if codec == "jpeg" and simplejpeg is not None:
        pixels = _read_jpeg(content, is_grey=not flags & cv2.IMREAD_COLOR)
        if pixels is not None:
            return pixels
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise _DamageError("is corrupt")
    return image


def _read_jpeg(content: bytes, *, is_grey: bool) -> np.ndarray | None:
    """The pixels by libjpeg-turbo; None for a colour space that it does not convert (CMYK). Raises: _DamageError."""
    try:
        *_, colorspace, _ = simplejpeg.decode_jpeg_header(content)
        if colorspace in ("CMYK", "YCCK"):
            return None
        pixels = simplejpeg.decode_jpeg(content, "GRAY" if is_grey else "BGR", strict=True)
    except ValueError as error:
        raise _DamageError(f"is corrupt: {error}") from error
    return np.asarray(pixels[..., 0] if is_grey else pixels)


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height from the header of its frame. Raises: _DamageError."""
    if content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
        raise _DamageError("is truncated")
    if content.count(_JPEG_SCAN) > _MAX_SCANS:
        raise _DamageError(f"has more than {_MAX_SCANS} scans")
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            raise _DamageError("is corrupt: no marker where one is due")
        marker = content[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker in _NO_LENGTH:
            position += 2
        elif marker in _FRAMES and position + 9 <= len(content):
            height, width = struct.unpack_from(">HH", content, position + 5)
            if width * height > _JPEG_PIXELS_PER_BYTE * len(content):
                raise _DamageError(f"is too short for its {width}x{height} pixels")
            return width, height
        else:
            position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    raise _DamageError("is truncated")


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height; the checksums of all chunks are right. Raises: _DamageError."""
    position, kind, size = len(_PNG_START), b"", (0, 0)
    while kind != b"IEND":
        if position + 12 > len(content):
            raise _DamageError("is truncated")
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            raise _DamageError("is truncated")
        if zlib.crc32(content[position + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise _DamageError("is corrupt: a checksum is wrong")
        if kind == b"IHDR" and length == 13:
            width, height, depth, colour = struct.unpack_from(">IIBB", content, position + 8)
            if width * height * depth * _PNG_CHANNELS.get(colour, 1) > 8 * _PNG_BYTES_PER_BYTE * len(content):
                raise _DamageError(f"is too short for its {width}x{height} pixels")
            size = width, height
        position = end + 4
    return size

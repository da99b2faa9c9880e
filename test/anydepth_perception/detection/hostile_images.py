"""Compressed images made to harm: what claims to be large, what is damaged, what is something else."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np


def picture(height: int = 240, width: int = 320) -> np.ndarray:
    """A picture with some detail, uint8 [H,W,3] bgr."""
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encoded(suffix: str, image: np.ndarray, *parameters: int) -> bytes:
    """A file as OpenCV writes it."""
    return bytes(cv2.imencode(suffix, image, list(parameters))[1].tobytes())


def with_jpeg_size(content: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in the header of its frame."""
    data = bytearray(content)
    position = next(data.find(bytes([0xFF, marker])) for marker in (0xC0, 0xC2) if bytes([0xFF, marker]) in data)
    struct.pack_into(">HH", data, position + 5, height, width)
    return bytes(data)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its right checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG of grey pixels with right checksums, whatever its size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The same JPEG with an EXIF block that tells how the picture is to be turned."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def damaged(seed: int, content: bytes) -> bytes:
    """A file with bytes overwritten, left out, doubled or cut off."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        if len(data) < 10:
            break
        kind, position = int(rng.integers(5)), int(rng.integers(2, len(data)))
        length = int(rng.integers(1, 200))
        if kind == 0:
            data[position] = int(rng.integers(256))
        elif kind == 1:
            del data[position : position + length]
        elif kind == 2:
            data[position:position] = data[position : position + length]
        elif kind == 3:
            data[position : position + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif len(data) > 100:
            del data[max(50, position) :]
    return bytes(data)


def hostile(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(format, data) of `count` messages; none is an image that a camera would send."""
    rng = np.random.default_rng(seed)
    image = picture()
    jpegs = [encoded(".jpg", image), encoded(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)]
    jpegs += [encoded(".jpg", image[..., 0]), encoded(".jpg", image, cv2.IMWRITE_JPEG_RST_INTERVAL, 4)]
    pngs = [encoded(".png", image), encoded(".png", image.astype(np.uint16) * 257), png_of_size(16, 16, bytes(17 * 16))]
    others = [encoded(suffix, image) for suffix in (".bmp", ".webp", ".tiff", ".ppm")]
    for index in range(count):
        choice = index % 8
        width, height = (int(value) for value in rng.integers(1, 65536, 2))
        if choice == 0:
            yield "jpeg", with_jpeg_size(jpegs[int(rng.integers(len(jpegs)))], width, height)
        elif choice == 1:
            yield "png", png_of_size(int(rng.integers(2**31)), height, bytes(int(rng.integers(1000))))
        elif choice == 2:
            yield str(rng.choice(["jpeg", "png", ""])), others[int(rng.integers(len(others)))]
        elif choice == 3:
            yield str(rng.choice(["png", "h264", "jpeg\0", "x" * 1000, "\u0301" * 9])), jpegs[0]
        elif choice == 4:
            yield "", rng.integers(0, 256, int(rng.integers(0, 2000)), np.uint8).tobytes()
        elif choice == 5:
            yield "png", damaged(index, pngs[int(rng.integers(len(pngs)))])
        else:
            yield "rgb8; jpeg compressed bgr8", damaged(index, jpegs[int(rng.integers(len(jpegs)))])

"""Images for the soak: good ones of any size and encoding, and hostile ones."""

from __future__ import annotations

import array
import random
from collections.abc import Callable

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

BYTES_OF_PIXEL = {
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3, "8UC4": 4, "mono16": 2,
    "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2,
}  # fmt: skip
"""Encodings that are decoded without cv_bridge, and the bytes of one pixel."""

_NOISE = np.random.default_rng(0).integers(0, 256, 8 << 20, np.uint8)
_LONG_TEXT = "x" * 100_000


def good_image(header: Header, rng: random.Random) -> Image:
    """Noise of a random size and encoding, with padded rows now and then."""
    encoding = rng.choice(list(BYTES_OF_PIXEL))
    width, height = rng.choice([(640, 480), (480, 640), (1280, 720), (2 * rng.randint(1, 500), rng.randint(1, 700))])
    step = width * BYTES_OF_PIXEL[encoding] + rng.choice([0, 0, 0, 1, 64])
    return _image(header, encoding, width, height, step, height * step)


def good_compressed(header: Header, rng: random.Random) -> CompressedImage:
    """A JPEG or PNG of a random size."""
    width, height = rng.choice([(640, 480), (rng.randint(8, 900), rng.randint(8, 700))])
    kind = rng.choice(["jpeg", "jpeg", "png"])
    picture = cv2.resize(_NOISE[: 32 * 32 * 3].reshape(32, 32, 3), (width, height))
    _, data = cv2.imencode(".jpg" if kind == "jpeg" else ".png", picture)
    return CompressedImage(header=header, format=f"rgb8; {kind} compressed bgr8", data=_bytes(data.tobytes()))


def hostile_image(header: Header, rng: random.Random) -> Image:
    """One that contradicts itself, claims too much, or has a header nobody expects."""
    kinds: list[Callable[[], Image]] = [
        lambda: _image(header, "rgb8", 640, 480, 640, 640 * 480 * 3),
        lambda: _image(header, "rgb8", 640, 480, 1920, rng.randint(0, 1920 * 480 - 1)),
        lambda: _image(header, "rgb8", 64, 48, 192, 192 * 48 + rng.randint(1, 100_000)),
        lambda: _image(header, "mono8", 2**31, 2**31, 2**31, 100),
        lambda: _image(header, "mono8", 4_000_000_000, 1, 4_000_000_000, 100),
        lambda: _image(header, "mono8", 40_000, 1, 40_000, 40_000),
        lambda: _image(header, "rgb8", 0, 0, 0, 0),
        lambda: _image(header, "yuyv", 33, 20, 66, 66 * 20),
        lambda: _image(header, rng.choice(["", "h264", "32FC1", "rgb9", "\u2603" * 40, _LONG_TEXT]), 64, 48, 192, 9216),
    ]
    return rng.choice(kinds)()


def hostile_compressed(header: Header, rng: random.Random) -> CompressedImage:
    """Data that are cut off, damaged, of another kind, or larger when they are decoded than anybody wants."""
    good = good_compressed(header, rng)
    content = bytearray(good.data)
    kind = rng.randrange(6)
    if kind == 0:
        content = content[: rng.randrange(len(content))]
    elif kind == 1:
        for _ in range(20):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 2:
        content = bytearray(_NOISE[: rng.randrange(1, 10_000)].tobytes())
    elif kind == 3:
        _, data = cv2.imencode(".png", np.zeros((6000, 6000), np.uint8))
        content = bytearray(data.tobytes())
    elif kind == 4:
        content = bytearray()
    texts = [good.format, "", "h264", "bayer_rggb8; jpeg compressed ", "16UC1; compressedDepth", _LONG_TEXT]
    good.format = texts[0] if kind < 5 else rng.choice(texts[1:])
    good.data = _bytes(bytes(content))
    return good


def odd_header(header: Header, rng: random.Random) -> Header:
    """The same with a stamp or a frame that nobody expects, now and then."""
    kind = rng.randrange(12)
    if kind == 0:
        header.frame_id = _LONG_TEXT
    elif kind == 1:
        header.stamp.sec = rng.choice([0, -1, -(2**31), 2**31 - 1])
    elif kind == 2:
        header.frame_id = "\u2603/camera frame"
    return header


def _image(header: Header, encoding: str, width: int, height: int, step: int, data_bytes: int) -> Image:
    message = Image(header=header, encoding=encoding, width=width, height=height, step=step)
    message.data = _bytes(_NOISE[:data_bytes].tobytes())
    return message


def _bytes(content: bytes) -> array.array[int]:
    data = array.array("B")
    data.frombytes(content)
    return data

"""sensor_msgs/Image to arrays, without copying where the encoding allows it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from anydepth_perception.detection.image_types import (
    BadImageError,
    Frame,
    ImageMessage,
    ReadOptions,
    check_size,
    quoted,
)

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
_CHANNELS16 = {
    "rgb16": (3, "rgb"),
    "bgr16": (3, "bgr"),
    "rgba16": (4, "rgb"),
    "bgra16": (4, "bgr"),
    "16UC3": (3, "bgr"),
    "16UC4": (4, "bgr"),
}
MONO16 = ("mono16", "16UC1")
_YUV422 = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}
_YUV420_PACKED = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
_YUV420_PLANAR = ("i420", "yuv420")
BAYER = {
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
}
"""Conversions of Bayer mosaics by encoding."""

BAYER16 = {name.replace("8", "16"): code for name, code in BAYER.items()}

ENCODINGS = (*_CHANNELS, *_CHANNELS16, *MONO16, *_YUV422, *_YUV420_PACKED, *_YUV420_PLANAR, *BAYER, *BAYER16)
"""Encodings decoded with numpy and OpenCV alone."""


def decode_raw(message: ImageMessage, options: ReadOptions) -> Frame:
    """Decodes a sensor_msgs/Image. Raises: BadImageError."""
    encoding = message.encoding
    check_size(message.width, message.height, options)
    if encoding in _CHANNELS:
        channels, color = _CHANNELS[encoding]
        image = _rows(message, channels)
        return Frame(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB), color) if channels == 4 else Frame(image, color)
    decoder = _DECODERS.get(encoding)
    return decoder(message, options) if decoder is not None else _decode_with_cv_bridge(message)


def demosaic(mosaic: np.ndarray, conversion: int) -> Frame:
    """A Bayer mosaic uint8 [H,W] in colour. Raises: BadImageError, where it is smaller than its pattern."""
    height, width = mosaic.shape
    if height < 2 or width < 2:
        raise BadImageError("size", f"a Bayer image needs 2x2 pixels, got {width}x{height}")
    return Frame(cv2.cvtColor(np.ascontiguousarray(mosaic), conversion), "rgb")


def to_8_bit(values: np.ndarray, bits: int) -> np.ndarray:
    """The highest 8 of `bits` significant bits of uint16 values; what is beyond `bits` saturates."""
    return np.minimum(values >> (bits - 8), 255).astype(np.uint8)


def _decode_channels16(message: ImageMessage, options: ReadOptions) -> Frame:
    channels, color = _CHANNELS16[message.encoding]
    return Frame(np.ascontiguousarray(to_8_bit(_values16(message, channels), 16)[..., :3]), color)


def _decode_mono16(message: ImageMessage, options: ReadOptions) -> Frame:
    return Frame(to_8_bit(_values16(message, 1)[..., 0], options.mono16_bits), "mono")


def _decode_yuv422(message: ImageMessage, options: ReadOptions) -> Frame:
    if message.width % 2:
        raise BadImageError("size", f"{message.encoding} needs an even width, got {message.width}")
    return Frame(cv2.cvtColor(_rows(message, 2), _YUV422[message.encoding]), "rgb")


def _decode_yuv420_packed(message: ImageMessage, options: ReadOptions) -> Frame:
    planes = _planes420(message)[:, : message.width]
    return Frame(cv2.cvtColor(np.ascontiguousarray(planes), _YUV420_PACKED[message.encoding]), "rgb")


def _decode_yuv420_planar(message: ImageMessage, options: ReadOptions) -> Frame:
    width, height, step = message.width, message.height, message.step
    planes = _planes420(message)
    if step != width:  # rows of colour have half the padding, and two of them lie in one row of `planes`
        if step % 2:
            raise BadImageError("step", f"step {step} is odd, and rows of colour have half of it")
        colour = planes[height:].reshape(height, step // 2)[:, : width // 2]
        planes = np.concatenate([planes[:height, :width], colour.reshape(-1, width)])
    return Frame(cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420), "rgb")


def _decode_bayer(message: ImageMessage, options: ReadOptions) -> Frame:
    return demosaic(_rows(message, 1), BAYER[message.encoding])


def _decode_bayer16(message: ImageMessage, options: ReadOptions) -> Frame:
    return demosaic(to_8_bit(_values16(message, 1)[..., 0], options.mono16_bits), BAYER16[message.encoding])


_DECODERS: dict[str, Callable[[ImageMessage, ReadOptions], Frame]] = {
    **dict.fromkeys(_CHANNELS16, _decode_channels16),
    **dict.fromkeys(MONO16, _decode_mono16),
    **dict.fromkeys(_YUV422, _decode_yuv422),
    **dict.fromkeys(_YUV420_PACKED, _decode_yuv420_packed),
    **dict.fromkeys(_YUV420_PLANAR, _decode_yuv420_planar),
    **dict.fromkeys(BAYER, _decode_bayer),
    **dict.fromkeys(BAYER16, _decode_bayer16),
}


def _rows(message: ImageMessage, pixel_bytes: int) -> np.ndarray:
    """View of the pixels, uint8 [H,W,pixel_bytes] ([H,W] for one byte), leaving out the padding of the rows."""
    height, width, step = message.height, message.width, message.step
    _check_data(message, width * pixel_bytes, height)
    data = np.frombuffer(message.data, np.uint8)
    shape, strides = (height, width, pixel_bytes), (step, pixel_bytes, 1)
    image = np.lib.stride_tricks.as_strided(data, shape, strides, writeable=False)
    return image[..., 0] if pixel_bytes == 1 else image


def _values16(message: ImageMessage, channels: int) -> np.ndarray:
    """The values in the byte order of this machine, uint16 [H,W,channels]."""
    rows = _rows(message, 2 * channels)
    order = ">u2" if message.is_bigendian else "<u2"
    return np.ascontiguousarray(rows).view(order).astype(np.uint16, copy=False)


def _planes420(message: ImageMessage) -> np.ndarray:
    """Brightness and colour of a 4:2:0 image, uint8 [H * 3 / 2, step]: the colour has half as many rows."""
    height, width, step = message.height, message.width, message.step
    if width % 2 or height % 2:
        raise BadImageError("size", f"{message.encoding} needs an even width and height, got {width}x{height}")
    rows = height * 3 // 2
    _check_data(message, width, rows)
    data = np.frombuffer(message.data, np.uint8)
    if data.size < rows * step:  # the last row without its padding
        data = np.concatenate([data, np.zeros(rows * step - data.size, np.uint8)])
    return data.reshape(rows, step)


def _check_data(message: ImageMessage, row_bytes: int, rows: int) -> None:
    """Whether `rows` rows of so many bytes lie in the data, the last one with its padding or without."""
    height, width, step = message.height, message.width, message.step
    if step < row_bytes:
        needs = f"{width} pixels of {message.encoding} need at least {row_bytes}"
        raise BadImageError("step", f"step {step} is too small: {needs}")
    needed = step * (rows - 1) + row_bytes
    if len(message.data) < needed:
        raise BadImageError(
            "data", f"data holds {len(message.data)} bytes, but {width}x{height} {message.encoding} with step {step} "
            f"needs {needed}"
        )
    if len(message.data) > step * rows:
        most = f"{rows} rows x step {step} = {step * rows}"
        raise BadImageError("data", f"data holds {len(message.data)} bytes, more than {most}")


def _decode_with_cv_bridge(message: ImageMessage) -> Frame:
    """The encodings beyond `ENCODINGS`, where the ROS distribution brings cv_bridge."""
    refusal = (
        f"encoding {quoted(message.encoding)} is not supported; supported are {', '.join(ENCODINGS)}; "
        "image_proc or the camera's driver can convert it"
    )
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise BadImageError("encoding", refusal) from None
    try:
        return Frame(CvBridge().imgmsg_to_cv2(message, desired_encoding="bgr8"), "bgr")
    except Exception as error:  # cv_bridge, cv2 and numpy raise their own kinds for a malformed message
        raise BadImageError("encoding", f"{refusal}; cv_bridge: {quoted(str(error))}") from error

"""Every encoding from one known picture: the worst error of a channel is stated here, and no pixel is elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from anydepth_perception.detection.images import ENCODINGS, BadImageError, ReadOptions, byte_array, decode

Worst = tuple[int, int, int]
"""Of red, green and blue."""

EXACT: Worst = (0, 0, 0)
YUV: Worst = (3, 2, 3)
MOSAIC: Worst = (3, 2, 3)
"""Of a smooth picture, beside its border of two pixels."""

BAYER_ROWS = {"rggb": ("rg", "gb"), "bggr": ("bg", "gr"), "gbrg": ("gb", "rg"), "grbg": ("gr", "bg")}


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture with other gradients in each channel, uint8 [H,W,3] rgb."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 2 * x, 200 - 3 * y, 60 + x + y], axis=-1).astype(np.uint8)


def yuv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ITU-R BT.601 with the limited range, as cameras have it: [H,W] each, before rounding."""
    red, green, blue = (rgb[..., channel] / 255.0 for channel in range(3))
    return (
        16 + 65.481 * red + 128.553 * green + 24.966 * blue,
        128 - 37.797 * red - 74.203 * green + 112.0 * blue,
        128 + 112.0 * red - 93.786 * green - 18.214 * blue,
    )


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def halved(plane: np.ndarray) -> np.ndarray:
    return (plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]) / 4


def mosaic(rgb: np.ndarray, order: str) -> np.ndarray:
    found = np.empty(rgb.shape[:2], np.uint8)
    for row, channels in enumerate(BAYER_ROWS[order]):
        for column, channel in enumerate(channels):
            found[row::2, column::2] = rgb[row::2, column::2, "rgb".index(channel)]
    return found


def wide(values: np.ndarray, big: bool, factor: int = 257) -> np.ndarray:
    """8-bit values as 16-bit ones, in bytes."""
    return (values.astype(np.uint16) * factor).astype(">u2" if big else "<u2").view(np.uint8)


def rows_of(encoding: str, rgb: np.ndarray, big: bool) -> np.ndarray:
    """The picture in an encoding: bytes [rows, row bytes] without padding."""
    height, width = rgb.shape[:2]
    with_alpha = np.concatenate([rgb, np.full((height, width, 1), 9, np.uint8)], axis=-1)
    name = encoding.removesuffix("16").removesuffix("8")
    luma, blue, red = yuv(rgb)
    if encoding in ("mono8", "8UC1"):
        return rgb[..., 1]
    if encoding in ("mono16", "16UC1"):
        return wide(rgb[..., 1], big)
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        found = np.empty((height, width, 2), np.uint8)
        brightness = 1 if encoding in ("yuv422", "uyvy") else 0
        found[..., brightness] = rounded(luma)
        found[:, ::2, 1 - brightness] = rounded((blue[:, ::2] + blue[:, 1::2]) / 2)
        found[:, 1::2, 1 - brightness] = rounded((red[:, ::2] + red[:, 1::2]) / 2)
        return found.reshape(height, -1)
    if encoding in ("nv12", "nv21"):
        planes = [rounded(halved(blue)), rounded(halved(red))]
        colour = np.stack(planes if encoding == "nv12" else planes[::-1], axis=-1)
        return np.concatenate([rounded(luma), colour.reshape(height // 2, width)])
    if encoding in ("i420", "yuv420"):
        colour = np.concatenate([rounded(halved(blue)), rounded(halved(red))])
        return np.concatenate([rounded(luma), colour.reshape(-1, width)])
    if name.startswith("bayer_"):
        values = mosaic(rgb, name.removeprefix("bayer_"))
        return wide(values, big) if encoding.endswith("16") else values
    order = {"rgb": rgb, "bgr": rgb[..., ::-1], "8UC3": rgb[..., ::-1], "16UC3": rgb[..., ::-1]}
    order |= {"rgba": with_alpha, "bgra": with_alpha[..., [2, 1, 0, 3]]}
    order |= {"8UC4": order["bgra"], "16UC4": order["bgra"]}
    values = np.ascontiguousarray(order[encoding if encoding in order else name]).reshape(height, -1)
    return wide(values, big) if "16" in encoding else values


def message(
    encoding: str, rgb: np.ndarray, *, padding: int = 0, big: bool = False, whole: bool = True
) -> SimpleNamespace:
    """An image message; rows have `padding` bytes behind them, the last one only if `whole`."""
    height, width = rgb.shape[:2]
    rows = np.ascontiguousarray(rows_of(encoding, rgb, big))
    step = rows.shape[1] + padding
    if encoding in ("i420", "yuv420"):  # rows of colour have half the padding
        colour = np.pad(rows[height:].reshape(height, width // 2), ((0, 0), (0, padding // 2)), constant_values=77)
        padded = np.pad(rows[:height], ((0, 0), (0, padding)), constant_values=77)
        content = np.concatenate([padded.reshape(-1), colour.reshape(-1)])
    else:
        content = np.pad(rows, ((0, 0), (0, padding)), constant_values=77).reshape(-1)
    content = content if whole or not padding else content[: -(padding // 2 if "420" in encoding else padding)]
    return SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=int(big), data=byte_array(content)
    )


def worst_of(encoding: str) -> Worst:
    if encoding.startswith("bayer"):
        return MOSAIC
    return YUV if encoding.startswith(("yuv", "uyvy", "yuyv", "nv", "i420")) else EXACT


def check(encoding: str, rgb: np.ndarray, **how: object) -> None:
    frame = decode(message(encoding, rgb, **how))
    assert frame.image.dtype == np.uint8
    if frame.color == "mono":
        found = np.stack([rgb[..., 0], frame.image, rgb[..., 2]], axis=-1)
    else:
        found = frame.image if frame.color == "rgb" else frame.image[..., ::-1]
    assert found.shape == rgb.shape
    inner = slice(2, -2) if encoding.startswith("bayer") else slice(None)
    errors = np.abs(found.astype(int) - rgb)[inner, inner].reshape(-1, 3).max(axis=0)
    assert (errors <= worst_of(encoding)).all(), errors


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_known_picture_comes_back(encoding: str) -> None:
    check(encoding, picture())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("whole", [True, False])
def test_padding_of_rows_is_left_out(encoding: str, whole: bool) -> None:
    check(encoding, picture(), padding=12, whole=whole)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if "16" in name])
def test_values_of_16_bits_may_have_either_byte_order(encoding: str) -> None:
    check(encoding, picture(), big=True)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_portrait_and_odd_sizes(encoding: str) -> None:
    check(encoding, picture(60, 34))
    halved_columns = encoding.startswith(("yuv422", "uyvy", "yuyv"))
    halved_both = encoding.startswith(("nv", "i420", "yuv420"))
    if halved_columns or halved_both:
        with pytest.raises(BadImageError, match="needs an even width"):
            decode(message_of_size(encoding, 48, 63))
        return
    check(encoding, picture(47, 63))


def message_of_size(encoding: str, height: int, width: int) -> SimpleNamespace:
    data = byte_array(np.zeros(height * width * 2, np.uint8))
    return SimpleNamespace(height=height, width=width, step=2 * width, encoding=encoding, is_bigendian=0, data=data)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "bayer_rggb16"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sensors_with_fewer_bits_use_all_of_8(encoding: str, bits: int) -> None:
    values = (picture()[..., 1].astype(np.uint16) << (bits - 8)).astype("<u2")
    raw = SimpleNamespace(
        height=48, width=64, step=128, encoding=encoding, is_bigendian=0, data=byte_array(values.view(np.uint8))
    )
    image = decode(raw, ReadOptions(mono16_bits=bits)).image
    expected = decode(message("mono8" if image.ndim == 2 else "bayer_rggb8", picture())).image
    if image.ndim == 2:
        np.testing.assert_array_equal(image, expected)
    else:
        assert image.max() > 150  # the mosaic of one channel: bright as that is


def test_values_beyond_the_bits_saturate() -> None:
    values = np.array([[0x0FFF, 0x1000, 0xFFFF]], "<u2")
    raw = SimpleNamespace(
        height=1, width=3, step=6, encoding="mono16", is_bigendian=0, data=byte_array(values.view(np.uint8))
    )
    assert decode(raw, ReadOptions(mono16_bits=12)).image.tolist() == [[255, 255, 255]]


def test_an_image_larger_than_is_read_is_refused_whatever_its_data() -> None:
    with pytest.raises(BadImageError, match=r"64x48 pixels is larger than max_image_pixels \(3071\)"):
        decode(message("rgb8", picture()), ReadOptions(max_pixels=3071))
    decode(message("rgb8", picture()), ReadOptions(max_pixels=3072))


def test_a_long_encoding_is_not_copied_into_the_reason() -> None:
    raw = message("rgb8", picture())
    raw.encoding = "x" * 8_000_000
    with pytest.raises(BadImageError) as error:
        decode(raw)
    assert "(8000000 characters)" in str(error.value)
    assert len(str(error.value)) < 1000

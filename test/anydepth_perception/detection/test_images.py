"""Decoding of image messages: right pixels for each encoding, and an error of the right kind for each fault."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from anydepth_perception.detection.images import BadImageError, byte_array, decode, fill_image

HEIGHT, WIDTH = 6, 8


def raw(data: np.ndarray | bytes, encoding: str, *, height=HEIGHT, width=WIDTH, step=None, big=0) -> SimpleNamespace:
    content = byte_array(np.frombuffer(bytes(data), np.uint8))
    step = len(content) // height if step is None else step
    return SimpleNamespace(height=height, width=width, step=step, encoding=encoding, is_bigendian=big, data=content)


def compressed(data: bytes, text: str = "jpeg") -> SimpleNamespace:
    return SimpleNamespace(format=text, data=byte_array(np.frombuffer(data, np.uint8)))


def pixels(*shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.mark.parametrize(("encoding", "color"), [("rgb8", "rgb"), ("bgr8", "bgr"), ("8UC3", "bgr")])
def test_three_channels_are_a_view_of_the_message(encoding, color):
    image = pixels(HEIGHT, WIDTH, 3)
    message = raw(image.tobytes(), encoding)
    frame = decode(message)
    assert frame.color == color
    np.testing.assert_array_equal(frame.image, image)
    assert np.shares_memory(frame.image, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_one_channel_is_a_view_of_the_message(encoding):
    image = pixels(HEIGHT, WIDTH)
    message = raw(image.tobytes(), encoding)
    frame = decode(message)
    assert frame.color == "mono"
    np.testing.assert_array_equal(frame.image, image)
    assert np.shares_memory(frame.image, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(("encoding", "color"), [("rgba8", "rgb"), ("bgra8", "bgr"), ("8UC4", "bgr")])
def test_four_channels_lose_the_last(encoding, color):
    image = pixels(HEIGHT, WIDTH, 4)
    frame = decode(raw(image.tobytes(), encoding))
    assert frame.color == color
    np.testing.assert_array_equal(frame.image, image[..., :3])


@pytest.mark.parametrize("big", [0, 1])
def test_mono16_keeps_the_high_byte_of_either_byte_order(big):
    image = pixels(HEIGHT, WIDTH, dtype=np.uint16)
    frame = decode(raw(image.astype(">u2" if big else "<u2").tobytes(), "mono16", big=big))
    assert frame.color == "mono"
    np.testing.assert_array_equal(frame.image, (image >> 8).astype(np.uint8))


@pytest.mark.parametrize(("encoding", "luma"), [("yuv422_yuy2", 0), ("yuyv", 0), ("uyvy", 1), ("yuv422", 1)])
def test_yuv422_of_grey_pixels_gives_their_brightness(encoding, luma):
    data = np.full((HEIGHT, WIDTH, 2), 128, np.uint8)
    data[..., luma] = np.linspace(16, 235, WIDTH).astype(np.uint8)
    frame = decode(raw(data.tobytes(), encoding))
    assert frame.color == "rgb" and frame.image.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(frame.image.astype(int), axis=2).max() <= 2
    assert frame.image[0, 0].max() <= 2 and frame.image[0, -1].min() >= 253


@pytest.mark.parametrize("whole_last_row", [True, False])
def test_padding_of_the_rows_is_left_out(whole_last_row):
    image = pixels(HEIGHT, WIDTH, 3)
    padded = np.full((HEIGHT, WIDTH * 3 + 5), 77, np.uint8)
    padded[:, : WIDTH * 3] = image.reshape(HEIGHT, -1)
    data = padded.tobytes() if whole_last_row else padded.tobytes()[:-5]
    np.testing.assert_array_equal(decode(raw(data, "rgb8", step=WIDTH * 3 + 5)).image, image)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (raw(bytes(HEIGHT * WIDTH * 3), "rgb9"), "encoding"),
        (raw(bytes(HEIGHT * WIDTH * 3), ""), "encoding"),
        (raw(b"", "rgb8", step=WIDTH * 3), "data"),
        (raw(b"", "rgb8", height=0, width=0, step=0), "size"),
        (raw(bytes(HEIGHT * WIDTH * 3), "rgb8", width=0), "size"),
        (raw(bytes(HEIGHT * WIDTH * 3), "rgb8", step=WIDTH * 3 - 1), "step"),
        (raw(bytes(HEIGHT * WIDTH * 3), "rgb8", step=0), "step"),
        (raw(bytes(HEIGHT * WIDTH * 3 - 1), "rgb8", step=WIDTH * 3), "data"),
        (raw(bytes(HEIGHT * WIDTH * 3 + 1), "rgb8", step=WIDTH * 3), "data"),
        (raw(bytes(10), "mono8", height=2**32 - 1, width=2**32 - 1, step=2**32 - 1), "size"),
        (raw(bytes(10), "mono8", height=4000, width=4000, step=2**32 - 1), "data"),
        (raw(bytes(HEIGHT * 7 * 2), "yuyv", width=7), "size"),
    ],
)
def test_message_that_contradicts_itself_is_an_error_of_its_kind(message, kind):
    with pytest.raises(BadImageError) as error:
        decode(message)
    assert error.value.kind == kind


def test_unknown_encoding_names_the_supported_ones():
    with pytest.raises(BadImageError, match="'rgb9' is not supported; supported are rgb8, bgr8"):
        decode(raw(bytes(HEIGHT * WIDTH * 3), "rgb9"))


def smooth_image() -> np.ndarray:
    return cv2.GaussianBlur(pixels(120, 160, 3), (0, 0), 4)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".jpg", 8), (".png", 0)])
def test_compressed_image_is_decoded_as_bgr(suffix, tolerance):
    image = smooth_image()
    frame = decode(compressed(cv2.imencode(suffix, image)[1].tobytes(), suffix[1:]))
    assert frame.color == "bgr"
    assert np.abs(frame.image.astype(int) - image).max() <= tolerance


def test_grey_jpeg_becomes_three_channels():
    data = cv2.imencode(".jpg", smooth_image()[..., 0])[1].tobytes()
    frame = decode(compressed(data, "mono8; jpeg compressed mono8"))
    assert frame.image.shape == (120, 160, 3)


def test_jpeg_padded_with_zeros_is_still_whole():
    data = cv2.imencode(".jpg", smooth_image())[1].tobytes() + bytes(100)
    assert decode(compressed(data)).image.shape == (120, 160, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_truncated_file_is_an_error(suffix, share):
    data = cv2.imencode(suffix, smooth_image())[1].tobytes()
    with pytest.raises(BadImageError) as error:
        decode(compressed(data[: int(len(data) * share)], suffix[1:]))
    assert error.value.kind == "compressed"


@pytest.mark.parametrize(
    ("data", "text", "kind"),
    [
        (b"", "jpeg", "size"),
        (b"not an image at all", "jpeg", "compressed"),
        (b"\xff\xd8\xff\xda\xff\xd9", "jpeg", "compressed"),
        (bytes(50), "16UC1; compressedDepth png", "encoding"),
    ],
)
def test_what_is_no_compressed_image_is_an_error_of_its_kind(data, text, kind):
    with pytest.raises(BadImageError) as error:
        decode(compressed(data, text))
    assert error.value.kind == kind


@pytest.mark.parametrize("seed", range(20))
def test_overwritten_bytes_never_raise_anything_else(seed):
    rng = np.random.default_rng(seed)
    data = bytearray(cv2.imencode([".jpg", ".png"][seed % 2], smooth_image())[1].tobytes())
    for position in rng.integers(0, len(data), 30):
        data[position] = rng.integers(0, 256)
    try:
        assert decode(compressed(bytes(data))).image.ndim == 3
    except BadImageError as error:
        assert error.kind == "compressed"


def test_filled_message_decodes_to_the_same_image():
    message = raw(b"0", "", height=1, width=1)
    image = pixels(HEIGHT, WIDTH, 3)
    fill_image(message, image, "bgr8")
    np.testing.assert_array_equal(decode(message).image, image)

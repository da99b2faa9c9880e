"""Pre-processing: the picture in the buffer, and the geometry that leads back to the source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anydepth_perception.detection.preprocess import ImageError, Preprocessor


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_letterbox_keeps_the_aspect_ratio_and_pads() -> None:
    preprocess = Preprocessor(320, 320)
    geometry = preprocess(np.full((480, 640, 3), 200, np.uint8))
    assert (geometry.scale_x, geometry.scale_y) == (0.5, 0.5)
    assert (geometry.offset_x, geometry.offset_y) == (0.0, 40.0)
    assert (preprocess.buffer[0, 40:280] == 200).all()
    assert (preprocess.buffer[0, :40] == 114).all()
    assert (preprocess.buffer[0, 280:] == 114).all()


def test_stretch_fills_the_input() -> None:
    preprocess = Preprocessor(32, 64, resize="stretch")
    geometry = preprocess(np.full((64, 16, 3), 9, np.uint8))
    assert (geometry.scale_x, geometry.scale_y, geometry.offset_x, geometry.offset_y) == (4.0, 0.5, 0.0, 0.0)
    assert (preprocess.buffer == 9).all()


def test_image_of_the_input_size_passes_unchanged() -> None:
    image = noise(64, 64, 3)
    preprocess = Preprocessor(64, 64)
    preprocess(image)
    np.testing.assert_array_equal(preprocess.buffer[0], image)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (33, 91), (64, 64), (200, 30), (1, 1)])
def test_bgr_gives_the_same_as_rgb_swapped(size: tuple[int, int]) -> None:
    image = noise(*size, 3)
    as_rgb, as_bgr = Preprocessor(64, 64), Preprocessor(64, 64)
    as_rgb(np.ascontiguousarray(image[:, :, ::-1]))
    as_bgr(image, "bgr")
    np.testing.assert_array_equal(as_bgr.buffer, as_rgb.buffer)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1)])
def test_mono_fills_all_three_channels(shape: tuple[int, ...]) -> None:
    mono = noise(*shape)
    preprocess, reference = Preprocessor(64, 64), Preprocessor(64, 64)
    preprocess(mono)
    reference(np.repeat(mono.reshape(48, 64, 1), 3, axis=2))
    np.testing.assert_array_equal(preprocess.buffer, reference.buffer)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_views_with_gaps_between_rows_give_the_same_as_copies(color: str) -> None:
    view = noise(100, 120, 3)[10:70, 20:100]
    from_view, from_copy = Preprocessor(64, 64), Preprocessor(64, 64)
    from_view(view, color)
    from_copy(view.copy(), color)
    np.testing.assert_array_equal(from_view.buffer, from_copy.buffer)


@pytest.mark.parametrize("view", [lambda i: i[::-1], lambda i: i[:, ::2], lambda i: i.transpose(1, 0, 2)])
def test_views_with_any_strides_give_the_same_as_copies(view) -> None:
    image = view(noise(60, 80, 3))
    from_view, from_copy = Preprocessor(64, 64), Preprocessor(64, 64)
    from_view(image)
    from_copy(np.ascontiguousarray(image))
    np.testing.assert_array_equal(from_view.buffer, from_copy.buffer)


def test_read_only_images_are_accepted() -> None:
    image = np.frombuffer(bytes(48 * 64 * 3), np.uint8).reshape(48, 64, 3)
    Preprocessor(64, 64)(image)
    Preprocessor(64, 64)(image, "bgr")


def test_padding_is_right_after_the_source_size_changes() -> None:
    preprocess = Preprocessor(64, 64)
    preprocess(np.full((64, 64, 3), 1, np.uint8))
    preprocess(np.full((32, 64, 3), 2, np.uint8))
    assert (preprocess.buffer[0, :16] == 114).all()
    assert (preprocess.buffer[0, 16:48] == 2).all()


def test_buffer_stays_the_same_memory() -> None:
    preprocess = Preprocessor(64, 64)
    buffer = preprocess.buffer
    for size in ((64, 64), (32, 64), (100, 20)):
        preprocess(noise(*size, 3))
        preprocess(noise(*size, 3), "bgr")
        preprocess(noise(*size))
        assert preprocess.buffer is buffer
    assert buffer.flags.c_contiguous


@given(height=st.integers(8, 900), width=st.integers(8, 900))
@settings(max_examples=60)
def test_geometry_points_at_where_the_pixels_went(height: int, width: int) -> None:
    """The centroid of a bright square, mapped back from the buffer, lies on the square's centre."""
    image = np.zeros((height, width, 3), np.uint8)
    side = max(2, min(height, width) // 4)
    top, left = height // 3, width // 3
    image[top : top + side, left : left + side] = 255
    preprocess = Preprocessor(256, 256, pad_value=0)
    geometry = preprocess(image)
    weight = preprocess.buffer[0, :, :, 0].astype(np.float64)
    if weight.sum() == 0:  # narrower than a pixel of the input
        return
    x = (weight.sum(0) * (np.arange(256) + 0.5)).sum() / weight.sum()
    y = (weight.sum(1) * (np.arange(256) + 0.5)).sum() / weight.sum()
    # Sampling may miss up to half a pixel of the coarser grid at each edge of the square.
    tolerance_x, tolerance_y = (max(0.51, 0.51 / scale) for scale in (geometry.scale_x, geometry.scale_y))
    assert (x - geometry.offset_x) / geometry.scale_x == pytest.approx(left + side / 2, abs=tolerance_x)
    assert (y - geometry.offset_y) / geometry.scale_y == pytest.approx(top + side / 2, abs=tolerance_y)


BAD_IMAGES = [
    (np.zeros((4, 4, 3), np.float32), r"float32\[4, 4, 3\], expected uint8"),
    (np.zeros((4, 4, 4), np.uint8), r"shape \[4, 4, 4\], expected \[H, W, 3\]"),
    (np.zeros(16, np.uint8), r"shape \[16\]"),
    (np.zeros((0, 4, 3), np.uint8), "is empty"),
    (np.zeros((4, 0), np.uint8), "is empty"),
    (np.zeros((1, 40000), np.uint8), "more than 32767 pixels"),
    ([[1, 2], [3, 4]], "is a list, expected a numpy array"),
]


@pytest.mark.parametrize(("image", "reason"), BAD_IMAGES)
def test_bad_image_is_refused_with_its_shape_and_type(image: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        Preprocessor(64, 64)(image)


def test_unknown_color_is_refused() -> None:
    with pytest.raises(ImageError, match="color is 'hsv', expected one of rgb, bgr"):
        Preprocessor(64, 64)(noise(4, 4, 3), "hsv")


def test_good_image_after_a_bad_one_is_served() -> None:
    preprocess = Preprocessor(64, 64)
    with pytest.raises(ImageError):
        preprocess(np.zeros((0, 4, 3), np.uint8))
    image = noise(64, 64, 3)
    preprocess(image)
    np.testing.assert_array_equal(preprocess.buffer[0], image)


def test_unknown_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="resize is 'crop', expected letterbox or stretch"):
        Preprocessor(64, 64, resize="crop")

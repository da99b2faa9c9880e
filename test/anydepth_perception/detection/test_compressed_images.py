"""Compressed images: what `format` says is followed, nothing is decoded on trust, and damage is told."""

from __future__ import annotations

import os
import resource
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hostile_images import (
    damaged,
    encoded,
    hostile,
    picture,
    png_of_size,
    with_exif_orientation,
    with_jpeg_size,
)

from anydepth_perception.detection import compressed_images
from anydepth_perception.detection.images import BadImageError, ReadOptions, byte_array, decode

SHARE = float(os.environ.get("FUZZ_SHARE", "0.1"))
LONGEST_S, MOST_MIB = 0.3, 200


def message(data: bytes, text: str = "jpeg") -> SimpleNamespace:
    return SimpleNamespace(format=text, data=byte_array(np.frombuffer(data, np.uint8)))


def refusal(data: bytes, text: str = "jpeg", options: ReadOptions | None = None) -> str:
    with pytest.raises(BadImageError) as error:
        decode(message(data, text), options or ReadOptions())
    return str(error.value)


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("size", [(32000, 32000), (65535, 65535), (65535, 513)])
@pytest.mark.parametrize("padding", [0, 10_000_000])
def test_a_jpeg_that_claims_to_be_large_is_refused_before_it_is_decoded(
    progressive: int, size: tuple[int, int], padding: int
) -> None:
    data = with_jpeg_size(encoded(".jpg", picture(16, 16), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive), *size)
    said = "pixels is larger than max_image_pixels" if padding else "is too short for its"
    assert said in refusal(data[:-2] + bytes(padding) + data[-2:])


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (40000, 1000), (0, 10)])
def test_a_png_that_claims_to_be_large_or_empty_is_refused(size: tuple[int, int]) -> None:
    assert "pixels" in refusal(png_of_size(*size), "png")


def test_the_bound_is_an_option() -> None:
    data = encoded(".jpg", picture(48, 64))
    assert "max_image_pixels (3071)" in refusal(data, options=ReadOptions(max_pixels=3071))
    assert decode(message(data), ReadOptions(max_pixels=3072)).image.shape == (48, 64, 3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_belong_to_the_stored_pixels_whatever_exif_says(orientation: int) -> None:
    jpeg = encoded(".jpg", picture(48, 64))
    turned = decode(message(with_exif_orientation(jpeg, orientation))).image
    np.testing.assert_array_equal(turned, decode(message(jpeg)).image)


def test_exif_is_left_out_by_opencv_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed_images, "simplejpeg", None)
    test_boxes_belong_to_the_stored_pixels_whatever_exif_says(6)


@pytest.mark.parametrize("text", ["", "jpeg", "jpg", "JPEG", "rgb8; jpeg compressed bgr8", "mono8; jpeg compressed "])
def test_formats_of_a_jpeg(text: str) -> None:
    assert decode(message(encoded(".jpg", picture()), text)).image.shape == (240, 320, 3)


@pytest.mark.parametrize(
    ("suffix", "text", "said"),
    [
        (".jpg", "png", "format 'png' says png, but the data are jpeg"),
        (".png", "rgb8; jpeg compressed bgr8", "says jpeg, but the data are png"),
        (".webp", "jpeg", "is neither JPEG nor PNG"),
        (".tiff", "", "is neither JPEG nor PNG"),
        (".jpg", "h264", "format 'h264' is not supported, supported are jpeg and png"),
        (".png", "32FC1; png compressed ", "encoding '32FC1' of format '32FC1; png compressed ' is not supported"),
        (".png", "16UC1; compressedDepth png", "is not supported, supported are jpeg and png"),
        (".jpg", "y" * 1_000_000, "(1000000 characters) is not supported"),
    ],
)
def test_what_is_not_decoded_is_told_by_what_the_format_says(suffix: str, text: str, said: str) -> None:
    found = refusal(encoded(suffix, picture()), text)
    assert said in found
    assert len(found) < 500


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_mosaic_becomes_colour(suffix: str) -> None:
    mosaic = np.empty((48, 64), np.uint8)
    mosaic[::2, ::2], mosaic[::2, 1::2], mosaic[1::2, ::2], mosaic[1::2, 1::2] = 200, 90, 90, 30  # rggb
    text = f"bayer_rggb8; {'jpeg' if suffix == '.jpg' else 'png'} compressed "
    quality = (cv2.IMWRITE_JPEG_QUALITY, 100) if suffix == ".jpg" else ()
    frame = decode(message(encoded(suffix, mosaic, *quality), text))
    assert frame.color == "rgb"
    assert np.abs(frame.image[4:-4, 4:-4].astype(int) - (200, 90, 30)).max() <= (4 if suffix == ".jpg" else 0)


def test_a_mosaic_that_the_publisher_has_converted_is_colour_already() -> None:
    image = picture()
    frame = decode(message(encoded(".png", image), "bayer_rggb8; png compressed bgr8"))
    np.testing.assert_array_equal(frame.image, image)


def test_16_bits_in_a_png_are_read_as_raw_ones_are() -> None:
    values = (np.arange(48 * 64, dtype=np.uint16) % 4096).reshape(48, 64)
    frame = decode(message(encoded(".png", values), "16UC1; png compressed "), ReadOptions(mono16_bits=12))
    assert frame.color == "mono"
    np.testing.assert_array_equal(frame.image, values >> 4)


def test_a_checksum_of_png_is_checked() -> None:
    data = bytearray(encoded(".png", picture()))
    data[len(data) // 2] ^= 1
    assert "a checksum is wrong" in refusal(bytes(data), "png")


def share_of_wrong_pixels(image: np.ndarray, expected: np.ndarray) -> float:
    if image.shape != expected.shape:
        return 1.0
    return float((np.abs(image.astype(int) - expected).max(axis=-1) > 20).mean())


def test_of_damaged_jpegs_few_are_taken_with_wrong_pixels() -> None:
    """OpenCV alone takes nearly all of them. What is taken here is valid code of other pixels: JPEG has no checksum."""
    rng = np.random.default_rng(0)
    whole = encoded(".jpg", picture())
    expected = decode(message(whole)).image
    accepted = wrong = 0
    for _ in range(300):
        data = bytearray(whole)
        for position in rng.integers(20, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(256)
        try:
            image = decode(message(bytes(data))).image
        except BadImageError:
            continue
        accepted += 1
        wrong += share_of_wrong_pixels(image, expected) > 0.1
    assert accepted <= 180
    assert wrong <= 60


def test_hostile_images_take_neither_time_nor_memory_and_none_is_taken_for_another() -> None:
    """`make fuzz` tries 5,000; in the test suite it is a tenth."""
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sizes: list[tuple[int, ...]] = []
    longest_s = 0.0
    for text, data in hostile(int(5000 * SHARE)):
        started = time.process_time()
        try:
            sizes.append(decode(message(data, text)).image.shape)
        except BadImageError as error:
            assert len(str(error)) < 1000
        longest_s = max(longest_s, time.process_time() - started)
    assert longest_s < LONGEST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib < MOST_MIB
    # Damage that is valid code for other pixels is taken; nothing is taken for an image of another size.
    assert {shape[:2] for shape in sizes} <= {(240, 320), (16, 16)}
    print(f"\n{int(5000 * SHARE)} hostile images, {len(sizes)} decoded, {longest_s * 1e3:.0f} ms the longest")


def test_damage_is_made_anew_for_each_seed() -> None:
    whole = encoded(".jpg", picture())
    assert len({damaged(seed, whole) for seed in range(20)} | {whole}) == 21

"""What of an image counts: regions to whole pixels, masks by the share of a box, classes and sizes."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from anydepth_perception.detection.detector import Detections
from anydepth_perception.detection.regions import Mask, MaskError, Region, Selection, read_mask

IMAGE = np.arange(100 * 200 * 3, dtype=np.uint8).reshape(100, 200, 3)


def found(*boxes: tuple[float, float, float, float], classes: tuple[int, ...] = ()) -> Detections:
    number = len(boxes)
    scores = np.linspace(0.9, 0.5, number).astype(np.float32)
    ids = np.array(classes or (0,) * number, np.int32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, ids, ("person", "crate"))


def boxes_of(detections: Detections) -> list[list[float]]:
    return detections.boxes_xyxy.tolist()


@pytest.mark.parametrize(
    ("region", "pixels"),
    [
        (Region(0.25, 0.5, 0.75, 1.0), (50, 50, 150, 100)),
        (Region(), (0, 0, 200, 100)),
        (Region(0.0, 0.0, 0.001, 0.001), (0, 0, 1, 1)),
        (Region(0.999, 0.999, 1.0, 1.0), (199, 99, 200, 100)),
    ],
)
def test_region_in_whole_pixels_is_never_empty(region: Region, pixels: tuple[int, ...]) -> None:
    assert region.pixels(200, 100) == pixels


def test_detector_sees_the_region_without_a_copy_and_boxes_come_back_in_pixels_of_the_image() -> None:
    selection = Selection(region=Region(0.25, 0.5, 0.75, 1.0))
    view = selection.view(IMAGE)
    assert view.shape == (50, 100, 3) and np.shares_memory(view, IMAGE)
    np.testing.assert_array_equal(view, IMAGE[50:, 50:150])
    assert boxes_of(selection.select(found((1, 2, 30, 40)), IMAGE, 10)) == [[51, 52, 80, 90]]


def test_mono_image_has_a_region_too() -> None:
    assert Selection(region=Region(0.0, 0.0, 0.5, 0.5)).view(IMAGE[..., 0]).shape == (50, 100)


def test_without_anything_set_all_detections_stay() -> None:
    selection = Selection()
    assert selection.view(IMAGE) is IMAGE and not selection.filters
    assert boxes_of(selection.select(found((1, 2, 3, 4)), IMAGE, 10)) == [[1, 2, 3, 4]]


def test_only_listed_classes_and_boxes_of_the_least_size_stay_best_first_up_to_the_most() -> None:
    detections = found((0, 0, 9, 50), (0, 0, 10, 10), (0, 0, 50, 50), (0, 0, 60, 60), classes=(0, 0, 1, 0))
    assert boxes_of(Selection(class_ids=frozenset({1})).select(detections, IMAGE, 10)) == [[0, 0, 50, 50]]
    large = Selection(min_box_size=10.0).select(detections, IMAGE, 2)
    assert boxes_of(large) == [[0, 0, 10, 10], [0, 0, 50, 50]]
    assert large.scores.tolist() == detections.scores[1:3].tolist() and large.class_names == ("person", "crate")


@pytest.mark.parametrize("selection", [Selection(min_box_size=5.0), Selection(class_ids=frozenset({0})),
                                       Selection(mask=Mask(np.zeros((4, 4), np.uint8)))])
def test_nothing_found_stays_nothing(selection: Selection) -> None:
    assert len(selection.select(found(), IMAGE, 10)) == 0


def test_mask_lets_pass_what_is_white_by_half_whatever_its_size() -> None:
    left_half = np.zeros((10, 20), np.uint8)
    left_half[:, :10] = 255
    selection = Selection(mask=Mask(left_half))
    detections = found((0, 0, 40, 40), (60, 0, 120, 40), (90, 0, 150, 40), (160, 0, 200, 100))
    assert boxes_of(selection.select(detections, IMAGE, 10)) == [[0, 0, 40, 40], [60, 0, 120, 40]]


def test_mask_is_laid_over_the_whole_image_beside_a_region() -> None:
    top = np.zeros((100, 200), np.uint8)
    top[:50] = 255
    selection = Selection(region=Region(0.0, 0.4, 1.0, 1.0), mask=Mask(top))
    assert boxes_of(selection.select(found((0, 0, 20, 10), (0, 10, 20, 20)), IMAGE, 10)) == [[0, 40, 20, 50]]


def test_share_of_white_is_that_of_the_pixels_under_the_box() -> None:
    picture = np.random.default_rng(0).integers(0, 2, (30, 40), np.uint8) * 255
    boxes = np.array([[2, 3, 20, 9], [0, 0, 40, 30], [39, 29, 40, 30], [5, 5, 6, 30]], float)
    shares = Mask(picture).white_share(boxes / np.array([40, 30, 40, 30]))
    expected = [(picture[int(t) : int(b), int(x) : int(r)] > 0).mean() for x, t, r, b in boxes]
    np.testing.assert_allclose(shares, expected)


def test_huge_mask_counts_as_a_smaller_one() -> None:
    picture = np.zeros((6000, 3), np.uint8)
    picture[:3000] = 255
    shares = Mask(picture).white_share(np.array([[0.0, 0.0, 1.0, 0.5], [0.0, 0.25, 1.0, 0.75], [0.3, 0.6, 0.4, 0.9]]))
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.0], atol=0.01)


def test_mask_in_a_file_is_read_anew_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.full((4, 4), 255, np.uint8))
    first = read_mask(str(path))
    assert read_mask(str(path)) is first
    cv2.imwrite(str(path), np.zeros((4, 4), np.uint8))
    os.utime(path, ns=(1, 1))
    whole = np.array([[0.0, 0.0, 1.0, 1.0]])
    assert first.white_share(whole) == 1.0 and read_mask(str(path)).white_share(whole) == 0.0


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "not a PNG file"),
        (b"\xff\xd8\xff\xe0 a jpeg, say, of enough bytes", "not a PNG file"),
        (bomb(100_000, 100_000), "100000x100000 pixels, a mask has 1 to 33554432"),
        (bomb(0, 5), "0x5 pixels"),
        (bomb(4, 4), "a damaged PNG file"),
    ],
)
def test_file_that_is_no_mask_is_refused_in_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "mask.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MaskError) as refusal:
        read_mask(str(path))
    assert str(path) in str(refusal.value) and reason in str(refusal.value) and "\n" not in str(refusal.value)


def test_pipe_and_huge_file_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(MaskError, match="not a file"):
        read_mask(str(tmp_path / "pipe.png"))
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MaskError, match="a mask has at most"):
        read_mask(str(tmp_path / "huge.png"))
    with pytest.raises(MaskError):
        read_mask("a\0b")

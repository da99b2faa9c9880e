"""Augmentation: a drawn rectangle stays inside its box, boxes stay valid, and the generator decides everything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.annotated import Annotated, Placement, Visibility, fit, mirror, paint, window_of
from training.data.augment_detr import augment_detr, cropped, place, side_of_batch, to_side, zoomed_out
from training.data.augment_yolo import augment_yolo, mix, mosaic
from training.data.colour import distort, shift_hsv
from training.data.settings import DetrAugmentation, YoloAugmentation

DETR = DetrAugmentation(photometric=0.0)
YOLO = YoloAugmentation(hue=0, saturation=0, value=0, mixup=0)
NO_CHANGE = YoloAugmentation(hue=0, saturation=0, value=0, translate=0, scale=0, flip=0, mosaic=0, mixup=0)
seeds = st.integers(0, 2**32)

Augment = Callable[[Annotated, np.random.Generator], Annotated]


def drawn(random: np.random.Generator, channel: int = 0) -> Annotated:
    """A black image of drawn size with one bright rectangle in one channel, which is also a region to ignore."""
    width, height = random.integers(30, 200, 2).tolist()
    (x0, x1), (y0, y1) = (sorted(random.choice(side + 1, 2, replace=False).tolist()) for side in (width, height))
    image = np.zeros((height, width, 3), np.uint8)
    image[y0:y1, x0:x1, channel] = 255
    boxes = np.array([[x0, y0, x1, y1]], np.float32)
    return Annotated(image, boxes, np.array([channel]), boxes.copy())


def bright(image: np.ndarray, channel: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the pixels that are mostly rectangle."""
    rows, columns = np.nonzero(image[..., channel] > 200)
    return columns, rows


def detr(source: Annotated, random: np.random.Generator) -> Annotated:
    size = tuple(random.integers(20, 150, 2).tolist())
    return augment_detr(source, size, str(random.choice(["stretch", "letterbox"])), DETR, random, plain=False)


def yolo(source: Annotated, random: np.random.Generator) -> Annotated:
    size = tuple(random.integers(20, 150, 2).tolist())
    plain = bool(random.random() < 0.5)
    return augment_yolo(source, lambda draws: drawn(draws, 1), size, YOLO, random, plain=plain)


def multi_scale(source: Annotated, random: np.random.Generator) -> Annotated:
    return to_side(fit(source, (96, 96), "stretch"), int(random.integers(2, 5)) * 32)


@pytest.mark.parametrize(("augment", "slack"), [(detr, 0.6), (yolo, 0.6), (multi_scale, 1.0)])
@given(seed=seeds)
@settings(max_examples=150)
def test_a_drawn_rectangle_stays_inside_its_box_and_fills_it(augment: Augment, slack: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    result = augment(drawn(random), random)
    mine = result.boxes[result.labels == 0]
    columns, rows = bright(result.image, 0)
    if len(mine) == 0 or len(columns) == 0:  # dropped, or thinner than a pixel
        return
    x0, y0, x1, y1 = mine[0]
    assert x0 - slack <= columns.min() and columns.max() + 1 <= x1 + slack
    assert y0 - slack <= rows.min() and rows.max() + 1 <= y1 + slack
    # A resampled edge is blurred over a pixel of the source, which may be five of the input.
    assert columns.min() - x0 <= 4 and x1 - columns.max() - 1 <= 4
    assert rows.min() - y0 <= 4 and y1 - rows.max() - 1 <= 4


@pytest.mark.parametrize("augment", [detr, yolo, multi_scale])
@given(seed=seeds)
@settings(max_examples=100)
def test_boxes_stay_inside_of_the_image_and_have_an_area(augment: Augment, seed: int) -> None:
    random = np.random.default_rng(seed)
    result = augment(drawn(random), random)
    height, width = result.image.shape[:2]
    for boxes in (result.boxes, result.ignored):
        assert np.isfinite(boxes).all()
        assert (boxes[:, :2] >= -1e-4).all() and (boxes[:, 2:] <= np.array([width, height]) + 1e-4).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(result.boxes) == len(result.labels)
    assert result.image.dtype == np.uint8


@pytest.mark.parametrize("augment", [detr, yolo])
def test_the_generator_alone_decides(augment: Augment) -> None:
    source = drawn(np.random.default_rng(1))
    first, again, other = (augment(source, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.boxes, again.boxes)
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("augment", [detr, yolo])
def test_the_source_is_left_as_it_was(augment: Augment) -> None:
    source = drawn(np.random.default_rng(2))
    before = source.image.copy()
    for seed in range(8):
        augment(source, np.random.default_rng(seed))
    assert np.array_equal(source.image, before)


def test_an_image_without_objects_passes_through() -> None:
    empty = Annotated(np.zeros((40, 50, 3), np.uint8), *(np.empty(s, np.float32) for s in ((0, 4), 0, (0, 4))))
    for seed in range(10):
        random = np.random.default_rng(seed)
        assert len(detr(empty, random).boxes) == 0
        assert augment_yolo(empty, lambda _: empty, (32, 32), YOLO, random, plain=False).boxes.shape == (0, 4)


@pytest.mark.parametrize(("resize", "fill"), [("stretch", 0), ("letterbox", 0)])
def test_a_plain_detr_image_is_the_fitted_one(resize: str, fill: int) -> None:
    source = drawn(np.random.default_rng(3))
    settings = dataclasses.replace(DETR, photometric=1.0, zoom_out=1.0, crop=1.0, flip=0.0)
    ours = augment_detr(source, (64, 96), resize, settings, np.random.default_rng(0), plain=True)
    theirs = fit(source, (64, 96), resize)
    assert ours.boxes == pytest.approx(theirs.boxes, abs=1.0)
    shown = theirs.image.max(2) != 114
    assert np.abs(ours.image.astype(int) - theirs.image)[shown].mean() < 3
    assert resize == "stretch" or (ours.image[~shown] == fill).mean() > 0.9


def test_a_yolo_image_without_any_change_is_the_letterboxed_one() -> None:
    source = drawn(np.random.default_rng(3))
    ours = augment_yolo(source, lambda _: source, (64, 96), NO_CHANGE, np.random.default_rng(0), plain=False)
    theirs = fit(source, (64, 96), "letterbox")
    assert ours.boxes == pytest.approx(theirs.boxes, abs=1.0)
    assert np.abs(ours.image.astype(int) - theirs.image).mean() < 3


def yolo_boxes_of_a_centred_object(settings: YoloAugmentation) -> np.ndarray:
    """[100, 4]: where an object of 20x10 in the middle of 100x50 pixels comes to lie in an input of 128x64."""
    middle = np.array([[40, 20, 60, 30]], np.float32)
    source = Annotated(np.zeros((50, 100, 3), np.uint8), middle, np.array([0]), np.empty((0, 4), np.float32))
    draws = (np.random.default_rng(seed) for seed in range(100))
    return np.stack(
        [augment_yolo(source, lambda _: source, (64, 128), settings, random, plain=False).boxes[0] for random in draws]
    )


def test_a_yolo_image_shrinks_and_grows_about_its_centre() -> None:
    boxes = yolo_boxes_of_a_centred_object(dataclasses.replace(NO_CHANGE, scale=0.5))
    assert np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - (64, 32)).max() < 1e-3
    gains = (boxes[:, 2] - boxes[:, 0]) / (20 * 1.28)
    assert 0.5 <= gains.min() < 0.6 and 1.4 < gains.max() <= 1.5


def test_a_yolo_image_shifts_by_up_to_its_share() -> None:
    boxes = yolo_boxes_of_a_centred_object(dataclasses.replace(NO_CHANGE, translate=0.25))
    shifts = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - (64, 32))
    assert shifts.max(0) == pytest.approx((32, 16), rel=0.1)
    assert (shifts < (32.001, 16.001)).all()


@given(seed=seeds)
def test_a_zoomed_out_view_holds_the_former_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    view = (0.0, 0.0, 100.0, 50.0)
    x0, y0, x1, y1 = zoomed_out(view, 4.0, random)
    assert x0 <= 0 and y0 <= 0 and x1 >= 100 - 1e-9 and y1 >= 50 - 1e-9
    assert 1 <= (x1 - x0) / 100 <= 4
    assert (x1 - x0) / (y1 - y0) == pytest.approx(2)


@given(seed=seeds)
@settings(max_examples=50)
def test_a_crop_lies_in_its_view_and_holds_the_centre_of_an_object(seed: int) -> None:
    random = np.random.default_rng(seed)
    boxes = drawn(random).boxes
    view = (-50.0, -50.0, 250.0, 250.0)
    x0, y0, x1, y1 = cropped(view, boxes, random)
    assert x0 >= -50 and y0 >= -50 and x1 <= 250 and y1 <= 250
    assert min(x1 - x0, y1 - y0) >= 0.3 * 300 - 1e-6
    assert 0.5 <= (x1 - x0) / (y1 - y0) <= 2
    centre_x, centre_y = (boxes[0, :2] + boxes[0, 2:]) / 2
    assert x0 < centre_x < x1 and y0 < centre_y < y1


def test_crops_overlap_with_an_object_as_drawn() -> None:
    box = np.array([[100, 100, 130, 130]], np.float32)
    sizes = [cropped((0, 0, 400, 400), box, np.random.default_rng(seed)) for seed in range(200)]
    whole = sum(size == (0, 0, 400, 400) for size in sizes)
    # A 30 px object of a 400 px image never fills a tenth of a crop, so only "any overlap" and "whole" are left.
    assert 60 < whole < 140
    assert len({*sizes}) > 50


def test_an_object_whose_centre_the_crop_leaves_out_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array([[0, 0, 40, 40], [90, 0, 130, 40]], np.float32)
    source = Annotated(np.zeros((100, 200, 3), np.uint8), boxes, np.array([0, 1]), np.empty((0, 4), np.float32))
    monkeypatch.setattr("training.data.augment_detr.cropped", lambda *_: (0.0, 0.0, 100.0, 100.0))
    settings = DetrAugmentation(photometric=0, zoom_out=0, crop=1, flip=0)
    result = augment_detr(source, (100, 100), "stretch", settings, np.random.default_rng(0), plain=False)
    assert result.labels.tolist() == [0]


def test_a_batch_draws_one_side_for_all_processes_and_others_for_other_batches() -> None:
    settings = DetrAugmentation()
    sides = [side_of_batch(settings, 3, iteration) for iteration in range(200)]
    assert sides == [side_of_batch(settings, 3, iteration) for iteration in range(200)]
    assert {*sides} == {*range(480, 801, 32)}
    assert side_of_batch(DetrAugmentation(sides=()), 3, 0) is None


def test_the_four_images_of_a_mosaic_meet_and_leave_no_seam() -> None:
    def plain_image(value: int) -> Annotated:
        image = np.full((50, 50, 3), value, np.uint8)
        whole = np.array([[0, 0, 50, 50]], np.float32)
        return Annotated(image, whole, np.array([value]), np.empty((0, 4), np.float32))

    settings = dataclasses.replace(YOLO, scale=0.0, translate=0.0)
    for seed in range(10):
        result = mosaic([plain_image(v) for v in (10, 60, 160, 210)], (64, 64), settings, np.random.default_rng(seed))
        assert {*np.unique(result.image)} <= {10, 60, 160, 210}
        covered = sum((box[2:] - box[:2]).prod() for box in result.boxes)
        # An image of which next to nothing is seen has no box.
        assert 0.8 * 64 * 64 <= covered <= 64 * 64
        for box, value in zip(result.boxes.astype(int), result.labels, strict=True):
            assert (result.image[box[1] : box[3], box[0] : box[2]] == value).all()


def test_mixup_shows_both_images_and_has_the_objects_of_both() -> None:
    first, second = (fit(drawn(np.random.default_rng(seed), seed), (64, 64)) for seed in (0, 1))
    mixed = mix(first, second, np.random.default_rng(0))
    assert mixed.labels.tolist() == [0, 1]
    assert np.array_equal(mixed.boxes, np.concatenate([first.boxes, second.boxes]))
    for image, channel in ((first.image, 0), (second.image, 1)):
        level = mixed.image[..., channel][image[..., channel] == 255]
        assert 60 < level.mean() < 200


def test_plain_yolo_images_come_from_one_image() -> None:
    def fail(_: np.random.Generator) -> Annotated:
        raise AssertionError("drew another image")

    settings = dataclasses.replace(YOLO, mosaic=1.0, mixup=1.0)
    augment_yolo(drawn(np.random.default_rng(0)), fail, (32, 32), settings, np.random.default_rng(0), plain=True)
    with pytest.raises(AssertionError, match="another image"):
        augment_yolo(drawn(np.random.default_rng(0)), fail, (32, 32), settings, np.random.default_rng(0), plain=False)


def test_boxes_of_which_too_little_is_seen_are_dropped() -> None:
    boxes = np.array([[0, 0, 10, 10], [-91, 0, 9, 10], [-80, 0, 20, 10], [0, 0, 50, 1]], np.float32)
    source = Annotated(np.zeros((50, 50, 3), np.uint8), boxes, np.arange(4), boxes[1:2])
    placement = Placement(1, 1, 0, 0, (0, 0, 50, 50))
    visibility = Visibility(min_side=1.0, min_share=0.1, max_aspect=40)
    result = paint(np.zeros((50, 50, 3), np.uint8), source, placement, visibility)
    assert result.labels.tolist() == [0, 2]
    assert result.ignored.tolist() == [[0, 0, 9, 10]]


def test_an_image_out_of_sight_leaves_the_canvas_alone() -> None:
    canvas = np.full((20, 20, 3), 9, np.uint8)
    placement = Placement(1, 1, 100, 100, window_of((100, 100, 150, 150), (20, 20)))
    result = paint(canvas, drawn(np.random.default_rng(0)), placement, Visibility())
    assert (canvas == 9).all()
    assert len(result.boxes) == len(result.ignored) == 0


def test_a_large_image_is_painted_from_the_part_that_is_seen() -> None:
    image = np.zeros((4, 40_000, 3), np.uint8)
    image[:, 39_000:] = 200
    boxes = np.array([[39_000, 0, 40_000, 4]], np.float32)
    source = Annotated(image, boxes, np.array([0]), boxes[:0])
    placement = place((38_900.0, 0.0, 39_100.0, 4.0), (4, 40_000), (4, 200), "stretch")
    result = paint(np.zeros((4, 200, 3), np.uint8), source, placement, Visibility())
    assert result.boxes.tolist() == [[100, 0, 200, 4]]
    assert (result.image[:, 101:] == 200).all() and (result.image[:, :99] == 0).all()


def test_mirroring_goes_with_the_picture() -> None:
    source = drawn(np.random.default_rng(9))
    result = mirror(source)
    columns, rows = bright(result.image, 0)
    assert result.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


def test_every_part_of_the_photometric_distortion_happens_about_as_often_as_asked() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    changed = 0
    for seed in range(200):
        result = image.copy()
        distort(result, 0.5, np.random.default_rng(seed))
        changed += not np.array_equal(result, image)
    assert 180 < changed <= 200
    for seed in range(20):
        result = image.copy()
        distort(result, 0.0, np.random.default_rng(seed))
        assert np.array_equal(result, image)


def test_hue_turns_by_a_share_of_its_circle() -> None:
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    shift_hsv(red, 1 / 3, 1.0, 1.0)
    assert red[0, 0].tolist() == [0, 200, 0]
    shift_hsv(red, -1 / 3, 1.0, 0.5)
    assert red[0, 0].tolist() == [100, 0, 0]
    shift_hsv(red, 0.0, 0.0, 1.0)
    assert red[0, 0].tolist() == [100, 100, 100]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DetrAugmentation(crop=1.5), "crop is 1.5"),
        (lambda: DetrAugmentation(sides=(500,)), "sides has 500"),
        (lambda: DetrAugmentation(max_zoom_out=0.5), "max_zoom_out is 0.5"),
        (lambda: YoloAugmentation(scale=1.0), "scale is 1.0"),
        (lambda: YoloAugmentation(plain_epochs=-1), "plain_epochs is -1"),
    ],
)
def test_a_setting_out_of_range_is_named(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()

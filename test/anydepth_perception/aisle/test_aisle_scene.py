"""Aisle scenes: pure functions of seed and time, exact boxes, coherent motion, classes not told by colour."""

from __future__ import annotations

import numpy as np
import pytest

from anydepth_perception.aisle import CLASS_NAMES, AisleFrame, AisleScene, geometry, solids


@pytest.fixture(scope="module")
def frames() -> list[AisleFrame]:
    return [AisleScene(seed).render(seed * 7.3 % 60) for seed in range(5000, 5120)]


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairwise IoU [n,m] of boxes xyxy."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


@pytest.mark.parametrize("size", [(320, 320), (640, 480), (97, 33)])
def test_frame_has_the_promised_shapes_and_types(size: tuple[int, int]) -> None:
    frame = AisleScene(3, *size).render(1.5)
    assert frame.image.shape == (size[1], size[0], 3) and frame.image.dtype == np.uint8
    assert frame.boxes.dtype == np.float32 and frame.boxes.shape == (len(frame.class_ids), 4)
    assert frame.class_ids.dtype == np.int64
    assert frame.ignore_boxes.dtype == np.float32 and frame.ignore_boxes.shape == (len(frame.ignore_class_ids), 4)


def test_render_depends_on_seed_and_time_only() -> None:
    scene = AisleScene(11)
    for time_s in (40.0, 0.0, 3.0):
        scene.render(time_s)
    first, second = scene.render(12.25), AisleScene(11).render(12.25)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.boxes, second.boxes)
    assert np.array_equal(first.ignore_boxes, second.ignore_boxes)


def test_render_does_not_depend_on_what_was_dropped_from_memory() -> None:
    scene = AisleScene(12)
    for time_s in np.arange(0, 1200, 12.0):
        scene.render(time_s)
    assert len(scene._world._cells) < 100
    assert np.array_equal(scene.render(5.0).image, AisleScene(12).render(5.0).image)


def test_seeds_and_times_give_different_images() -> None:
    reference = AisleScene(1).render(1.0).image
    assert not np.array_equal(reference, AisleScene(2).render(1.0).image)
    assert not np.array_equal(reference, AisleScene(1).render(1.1).image)


def test_boxes_are_ordered_within_the_image_and_at_least_four_pixels(frames: list[AisleFrame]) -> None:
    for frame in frames:
        boxes = np.concatenate([frame.boxes, frame.ignore_boxes])
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= 320).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert ((frame.boxes[:, 2:] - frame.boxes[:, :2]) >= 4).all()


def test_every_class_appears_and_images_are_populated(frames: list[AisleFrame]) -> None:
    counts = np.bincount(np.concatenate([f.class_ids for f in frames]), minlength=len(CLASS_NAMES))
    assert len(counts) == len(CLASS_NAMES)
    assert counts.min() > 0.05 * counts.sum()
    assert 4 <= np.median([len(f.boxes) for f in frames]) <= 12


def test_objects_move_a_little_from_frame_to_frame() -> None:
    overlaps, shifts = [], []
    for seed in range(40, 60):
        scene = AisleScene(seed)
        first, second = scene.render(9.0), scene.render(9.0 + 1 / 30)
        for class_id in range(len(CLASS_NAMES)):
            before, after = first.boxes[first.class_ids == class_id], second.boxes[second.class_ids == class_id]
            if len(before) and len(after):
                best = iou(before, after).max(1)
                overlaps.extend(best)
                shifts.extend(1 - best)
    assert np.mean(np.array(overlaps) > 0.6) > 0.95
    assert np.mean(shifts) > 0.005


@pytest.mark.parametrize("time_s", [0.0, 60.0, 600.0])
def test_the_aisle_does_not_end(time_s: float) -> None:
    assert np.mean([len(AisleScene(seed).render(time_s).boxes) for seed in range(60, 70)]) >= 4


def test_colour_does_not_tell_the_class() -> None:
    rng = np.random.default_rng(0)
    features, labels = [], []
    for label, build in enumerate(solids.LABELLED):
        for _ in range(200):
            mesh = build(rng.random(6), 0.0, False, 1)
            edges = np.cross(mesh.quads[:, 2] - mesh.quads[:, 0], mesh.quads[:, 3] - mesh.quads[:, 1])
            areas = np.linalg.norm(edges, axis=1)
            features.append(areas @ solids.textured(mesh, rng) / areas.sum())
            labels.append(label)
    colours, classes = np.array(features), np.array(labels)
    train = np.arange(len(classes)) % 2 == 0
    centroids = np.array([colours[train & (classes == c)].mean(0) for c in range(len(CLASS_NAMES))])
    guesses = np.linalg.norm(colours[~train, None] - centroids[None], axis=-1).argmin(1)
    chance = 1 / len(CLASS_NAMES)
    assert (guesses == classes[~train]).mean() < chance + 0.12


def test_colour_in_the_image_hardly_tells_the_class(frames: list[AisleFrame]) -> None:
    features, labels = [], []
    for frame in frames:
        for (x0, y0, x1, y1), label in zip(frame.boxes.astype(int), frame.class_ids, strict=True):
            width, height = (x1 - x0) // 4, (y1 - y0) // 4
            features.append(frame.image[y0 + height : y1 - height, x0 + width : x1 - width].mean((0, 1)))
            labels.append(label)
    colours, classes = np.array(features), np.array(labels)
    train = np.arange(len(classes)) % 2 == 0
    centroids = np.array([colours[train & (classes == c)].mean(0) for c in range(len(CLASS_NAMES))])
    guesses = np.linalg.norm(colours[~train, None] - centroids[None], axis=-1).argmin(1)
    per_class = [(guesses[classes[~train] == c] == c).mean() for c in range(len(CLASS_NAMES))]
    assert np.mean(per_class) < 1 / len(CLASS_NAMES) + 0.15


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)))
@pytest.mark.parametrize("detail", [0, 1])
def test_labelled_solids_stand_on_the_floor_at_a_plausible_size(label: int, detail: int) -> None:
    for shape in np.random.default_rng(label).random((20, 6)):
        points = solids.LABELLED[label](shape, 1.0, True, detail).quads.reshape(-1, 3)
        extent = points.max(0) - points.min(0)
        assert -0.08 < points[:, 1].min() < 0.12
        assert (extent > 0.1).all() and (extent < 3.5).all()


def test_primitives_face_outwards() -> None:
    cylinder, box = geometry.revolve([1, 1], [0, 1], 8), geometry.UNIT_BOX
    limb = geometry.limbs(np.zeros((1, 3)), np.array([[0, 1, 0.2]]), np.ones((1, 2)), np.ones((1, 2)), 6)[0]
    for quads, centre in ((cylinder, (0, 0.5, 0)), (box, (0, 0, 0)), (limb, (0, 0.5, 0.1))):
        normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        assert (((quads.mean(1) - centre) * normals).sum(1) > 0).all()


@pytest.mark.parametrize("arguments", [(-1, 320, 320), (0, 16, 320), (0, 320, 0)])
def test_impossible_scenes_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be >="):
        AisleScene(*arguments)


@pytest.mark.parametrize("time_s", [-1.0, float("nan"), float("inf")])
def test_impossible_times_are_refused(time_s: float) -> None:
    with pytest.raises(ValueError, match="finite and >= 0"):
        AisleScene(0).render(time_s)

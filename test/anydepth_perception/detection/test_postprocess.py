"""Post-processing: threshold, NMS and the way back to source pixels, against a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anydepth_perception.detection.postprocess import Postprocessor, class_wise_nms, threshold_logits, to_source
from anydepth_perception.detection.preprocess import Geometry, Preprocessor

SQUARE = Geometry(100, 100, 100, 100, 1.0, 1.0, 0.0, 0.0)


def raw(*objects: tuple[list[float], list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Raw outputs [1, N, 4] and [1, N, C] of objects given as box in [0, 1] and scores."""
    boxes = np.array([[box for box, _ in objects]], np.float32)
    scores = np.array([[scores for _, scores in objects]], np.float64)
    return boxes, np.log(scores / (1 - scores)).astype(np.float32)


def test_box_comes_out_in_source_pixels() -> None:
    geometry = Preprocessor(320, 320)(np.zeros((480, 640, 3), np.uint8))
    boxes, logits = raw(([0.25, 0.25, 0.5, 0.5], [0.1, 0.9]))
    found = Postprocessor(nms=True)(boxes, logits, geometry)
    # x: 80 of 320 is 160 of 640; y: 80 of 320, less 40 of padding, is 80 of 480.
    np.testing.assert_allclose(found.boxes_xyxy, [[160, 80, 320, 240]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9], atol=1e-6)
    assert found.class_ids.tolist() == [1]
    assert (found.boxes_xyxy.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int32)


@given(
    source=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    resize=st.sampled_from(["letterbox", "stretch"]),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=100)
def test_way_to_the_input_and_back_ends_where_it_began(
    source: tuple[int, int], resize: str, corners: tuple[float, float, float, float]
) -> None:
    height, width = source
    geometry = Preprocessor(320, 448, resize=resize)(np.zeros((height, width, 3), np.uint8))
    box = np.array([corners]) * [width, height, width, height]
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2)
    offset = np.array([geometry.offset_x, geometry.offset_y] * 2)
    in_input = (box * scale + offset) / [448, 320, 448, 320]
    assert ((in_input >= -1e-9) & (in_input <= 1 + 1e-9)).all()
    np.testing.assert_allclose(to_source(in_input, geometry), box, atol=1e-6)


def test_boxes_are_clipped_to_the_image() -> None:
    boxes, logits = raw(([-0.2, 0.5, 0.5, 1.3], [0.9]))
    found = Postprocessor(nms=True)(boxes, logits, SQUARE)
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 50, 50, 100]], atol=1e-4)


@pytest.mark.parametrize("box", [[1.1, 0.1, 1.5, 0.5], [0.5, 0.5, 0.5, 0.9], [0.5, 0.5, 0.4, 0.9]])
def test_boxes_without_area_in_the_image_are_dropped(box: list[float]) -> None:
    boxes, logits = raw((box, [0.9]), ([0.1, 0.1, 0.2, 0.2], [0.8]))
    assert Postprocessor(nms=True)(boxes, logits, SQUARE).scores == pytest.approx([0.8])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_dropped(value: float) -> None:
    boxes, logits = raw(([0.1, 0.1, 0.2, 0.2], [0.8]), ([0.5, 0.5, 0.7, 0.7], [0.7]), ([0.3, 0.3, 0.4, 0.4], [0.6]))
    boxes[0, 0, 2] = value
    logits[0, 1, 0] = np.nan
    assert Postprocessor(nms=True)(boxes, logits, SQUARE).scores == pytest.approx([0.6])


def test_repeated_box_of_a_class_is_suppressed_and_another_class_is_not() -> None:
    boxes, logits = raw(
        ([0.1, 0.1, 0.5, 0.5], [0.7, 0.01]),
        ([0.11, 0.1, 0.5, 0.5], [0.9, 0.01]),
        ([0.1, 0.11, 0.5, 0.5], [0.01, 0.8]),
    )
    found = Postprocessor(nms=True)(boxes, logits, SQUARE)
    assert found.scores == pytest.approx([0.9, 0.8])
    assert found.class_ids.tolist() == [0, 1]


def test_without_nms_all_boxes_stay() -> None:
    boxes, logits = raw(([0.1, 0.1, 0.5, 0.5], [0.7]), ([0.1, 0.1, 0.5, 0.5], [0.9]))
    assert Postprocessor(nms=False)(boxes, logits, SQUARE).scores == pytest.approx([0.9, 0.7])


def test_box_has_its_best_class_alone_unless_labels_may_be_many() -> None:
    boxes, logits = raw(([0.1, 0.1, 0.5, 0.5], [0.6, 0.8, 0.2]))
    assert Postprocessor(nms=True)(boxes, logits, SQUARE).class_ids.tolist() == [1]
    assert Postprocessor(nms=True, multi_label=True)(boxes, logits, SQUARE).class_ids.tolist() == [1, 0]


def test_threshold_per_class_lets_a_lower_class_pass() -> None:
    boxes, logits = raw(([0.1, 0.1, 0.5, 0.5], [0.6, 0.4]))
    found = Postprocessor(nms=True)(boxes, logits, SQUARE, score_threshold=np.array([0.7, 0.3]))
    assert found.class_ids.tolist() == [1]


def test_thresholds_at_the_ends() -> None:
    boxes, logits = raw(([0.1, 0.1, 0.2, 0.2], [0.001]), ([0.5, 0.5, 0.9, 0.9], [0.999]))
    assert len(Postprocessor(nms=True)(boxes, logits, SQUARE, score_threshold=0.0)) == 2
    assert len(Postprocessor(nms=True)(boxes, logits, SQUARE, score_threshold=1.0)) == 0


def test_best_detections_are_kept_when_there_are_too_many() -> None:
    scores = np.linspace(0.4, 0.9, 50)
    cells = [([i / 50, 0.1, (i + 1) / 50, 0.2], [scores[i]]) for i in np.random.default_rng(0).permutation(50)]
    found = Postprocessor(nms=True)(*raw(*cells), SQUARE, max_detections=5)
    assert found.scores == pytest.approx(scores[::-1][:5], abs=1e-6)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan, np.array([0.5, 0.5])])
def test_bad_threshold_is_refused(threshold: float | np.ndarray) -> None:
    boxes, logits = raw(([0.1, 0.1, 0.5, 0.5], [0.6]))
    with pytest.raises(ValueError, match="score_threshold"):
        Postprocessor(nms=True)(boxes, logits, SQUARE, score_threshold=threshold)


def test_bad_max_detections_is_refused() -> None:
    boxes, logits = raw(([0.1, 0.1, 0.5, 0.5], [0.6]))
    with pytest.raises(ValueError, match="max_detections is 0"):
        Postprocessor(nms=True)(boxes, logits, SQUARE, max_detections=0)


def test_logits_of_thresholds_invert_the_sigmoid() -> None:
    thresholds = np.array([0.0, 0.001, 0.3, 0.5, 0.99, 1.0])
    logits = threshold_logits(thresholds, 6).astype(np.float64)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), thresholds, atol=1e-6)


def reference_nms(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, threshold: float) -> list[int]:
    """Greedy NMS, one box at a time."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        for other in kept:
            one, two = boxes[index], boxes[other]
            width, height = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
            overlap = max(0.0, width) * max(0.0, height)
            areas = np.prod(one[2:] - one[:2]) + np.prod(two[2:] - two[:2])
            if class_ids[index] == class_ids[other] and overlap > threshold * (areas - overlap):
                break
        else:
            kept.append(int(index))
    return kept


@given(seed=st.integers(0, 10**6), count=st.integers(1, 80), threshold=st.sampled_from([0.3, 0.5, 0.7]))
@settings(max_examples=60)
def test_nms_equals_the_reference(seed: int, count: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.choice(rng.random((5, 2)), count) + rng.normal(0, 0.02, (count, 2))
    sizes = rng.uniform(0.1, 0.2, (count, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    scores, class_ids = rng.random(count), rng.integers(0, 3, count)
    kept = class_wise_nms(boxes, scores, class_ids, threshold)
    assert kept.tolist() == reference_nms(boxes, scores, class_ids, threshold)

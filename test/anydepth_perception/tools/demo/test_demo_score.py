"""The demo's recall and precision, on boxes laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from anydepth_perception.tools.demo.score import Agreement, LabelledBoxes, compare, pairwise_iou

BOX = (10.0, 10.0, 50.0, 50.0)
SHIFTED = (14.0, 10.0, 54.0, 50.0)  # IoU 36 / 44 with BOX
TINY = (100.0, 100.0, 111.0, 111.0)
FAR = (200.0, 200.0, 240.0, 240.0)


def labelled(*entries: tuple[tuple[float, ...], str, float]) -> LabelledBoxes:
    boxes = np.array([box for box, _, _ in entries], float).reshape(-1, 4)
    return LabelledBoxes(boxes, tuple(name for _, name, _ in entries), np.array([score for _, _, score in entries]))


def agreement(detections: LabelledBoxes, truth: LabelledBoxes, *ignored: tuple[float, ...]) -> tuple[int, ...]:
    total = Agreement()
    compare(detections, truth, np.array(ignored, float).reshape(-1, 4), total)
    return total.found, total.objects, total.correct, total.wrong


def test_a_shifted_box_of_the_right_class_is_found() -> None:
    assert agreement(labelled((SHIFTED, "cone", 0.5)), labelled((BOX, "cone", 1))) == (1, 1, 1, 0)


def test_another_class_is_wrong_and_the_object_is_missed() -> None:
    assert agreement(labelled((BOX, "crate", 0.5)), labelled((BOX, "cone", 1))) == (0, 1, 0, 1)


def test_the_second_box_on_an_object_is_wrong() -> None:
    detections = labelled((SHIFTED, "cone", 0.5), (BOX, "cone", 0.9))
    assert agreement(detections, labelled((BOX, "cone", 1))) == (1, 1, 1, 1)


def test_small_objects_are_neither_asked_for_nor_wrong() -> None:
    assert agreement(labelled((TINY, "cone", 0.5)), labelled((TINY, "cone", 1))) == (0, 0, 0, 0)


def test_detections_in_ignored_regions_do_not_count() -> None:
    assert agreement(labelled((FAR, "cone", 0.5)), labelled(), FAR) == (0, 0, 0, 0)
    assert agreement(labelled((FAR, "cone", 0.5)), labelled()) == (0, 0, 0, 1)


def test_nothing_detected_and_nothing_there() -> None:
    assert agreement(labelled(), labelled()) == (0, 0, 0, 0)
    assert Agreement().recall == 0.0
    assert Agreement().precision == 0.0


def test_recall_and_precision_are_shares() -> None:
    total = Agreement(found=3, objects=4, correct=3, wrong=2)
    assert total.recall == 0.75
    assert total.precision == 0.6


def test_pairwise_iou() -> None:
    iou = pairwise_iou(np.array([BOX]), np.array([BOX, SHIFTED, FAR]))
    assert iou[0].tolist() == pytest.approx([1.0, 36 / 44, 0.0])

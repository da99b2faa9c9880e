"""Evaluation: COCO figures equal pycocotools', and perfect detections score one."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.detector import Detections
from training.data.aisle import render_image
from training.evaluate import METRICS, coco_metrics, coco_results, evaluate, main


def oracle(image: np.ndarray, noise: np.random.Generator | None) -> Detections:
    """The true boxes of the first images of the split, moved a little where `noise` is given."""
    frame = next(f for f in (render_image("val", i) for i in range(4)) if np.array_equal(f.image, image))
    boxes, labels = frame.boxes.copy(), frame.class_ids.copy()
    scores = np.ones(len(boxes), np.float32)
    if noise is not None:
        boxes += noise.normal(0, 1.5, boxes.shape).astype(np.float32)
        labels = np.where(noise.random(len(labels)) < 0.2, 0, labels)
        scores = noise.integers(1, 4, len(boxes)).astype(np.float32) / 4  # coarse, so that scores tie
    return Detections(boxes, scores, labels.astype(np.int32))


def test_true_boxes_score_one() -> None:
    config = DepthConfig.full()
    metrics = evaluate(lambda image, _: oracle(image, None), [config], "val", 4)[str(config)]
    assert metrics["AP"] == pytest.approx(1.0)
    assert metrics["APs"] == pytest.approx(1.0)


def test_metrics_equal_pycocotools_with_ignored_objects_and_ties() -> None:
    from training.data.aisle import coco_ground_truth

    noise = np.random.default_rng(0)
    truth = coco_ground_truth("val", 4)
    results = []
    for index in range(4):
        results += coco_results(oracle(render_image("val", index).image, noise), index + 1)
    assert any(annotation["iscrowd"] for annotation in truth["annotations"])
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = coco_metrics(truth, results)
    assert 0.05 < ours["AP"] < 0.95
    assert [ours[name] for name in METRICS] == pytest.approx(list(evaluation.stats), abs=1e-6)


def test_no_detections_score_zero() -> None:
    config = DepthConfig.base()
    metrics = evaluate(lambda image, _: Detections.empty(), [config], "val", 1)
    assert metrics == {str(config): dict.fromkeys(METRICS, 0.0)}


def test_wrong_arguments_end_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", "no-such-bundle"]) == 1
    assert "no-such-bundle" in capsys.readouterr().err

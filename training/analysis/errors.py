"""What a detector gets wrong: true and false positives, missed objects (FINE, Table 5), and duplicates by exit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from anydepth_perception.detection.detector import Detections
from anydepth_perception.detection.postprocess import class_wise_nms
from training.evaluation.coco import ImageResult, Results
from training.evaluation.images import Truth

IOU_THRESHOLD = 0.5
SCORE_THRESHOLD = 0.5
"""Those of FINE's Table 5."""

BACKGROUND_IOU = 0.1
"""A false positive that overlaps every object less than this lies on background."""

DUPLICATE, CLASS, PLACE, BACKGROUND = "duplicate", "class", "place", "background"
KINDS = (DUPLICATE, CLASS, PLACE, BACKGROUND)
"""Why a detection is false: its object was found already; an object of another class; an object, but IoU below 0.5;
nothing there."""


@dataclass(frozen=True)
class ErrorCounts:
    """Counts over a data set at one score threshold."""

    images: int
    true_positives: int
    false_positives: int
    false_negatives: int
    kinds: Mapping[str, int] = field(default_factory=dict)

    @property
    def precision(self) -> float:
        """Share of the detections that are right; 0 without any."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the objects that are found; 0 without any."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    @property
    def duplicates_per_object(self) -> float:
        """Further detections of an object that was found already, per object found."""
        return self.kinds.get(DUPLICATE, 0) / max(1, self.true_positives)

    def row(self) -> dict[str, float]:
        """All figures by name, for JSON and tables."""
        return {
            "images": self.images,
            "true_positives": self.true_positives,
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            **{f"false_{kind}": self.kinds.get(kind, 0) for kind in KINDS},
            "duplicates_per_object": self.duplicates_per_object,
        }


def count_errors(
    results: Results, depth: str, *, score_threshold: float = SCORE_THRESHOLD, iou_threshold: float = IOU_THRESHOLD
) -> ErrorCounts:
    """Counts the errors of one configuration.

    Within a class, detections in order of their scores each take the free object of the highest IoU, of at least
    `iou_threshold`. What is left is false, unless half of it lies in a crowd of its class; objects left are missed.
    Crowds count on neither side.
    """
    true_positives, objects = 0, 0
    kinds: Counter[str] = Counter()
    for result in results.values():
        matched, false = match(result.truth, result.detections[depth], score_threshold, iou_threshold)
        true_positives += matched
        objects += int((~result.truth.crowd).sum())
        kinds.update(false)
    return ErrorCounts(len(results), true_positives, kinds.total(), objects - true_positives, dict(kinds))


def match(
    truth: Truth, detections: Detections, score_threshold: float, iou_threshold: float
) -> tuple[int, list[str]]:
    """Objects found in one image, and the kind (of `KINDS`) of each false positive."""
    chosen = np.flatnonzero(detections.scores >= score_threshold)
    chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")]
    boxes = detections.boxes_xyxy[chosen].astype(np.float64)
    labels = detections.class_ids[chosen]
    corners = np.concatenate([truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]], axis=1)
    objects, crowds = corners[~truth.crowd], corners[truth.crowd]
    object_labels, crowd_labels = truth.class_ids[~truth.crowd], truth.class_ids[truth.crowd]
    overlaps = iou(boxes, objects)
    within = share_inside(boxes, crowds)
    free = np.ones(len(objects), bool)
    false: list[str] = []
    for row, label in enumerate(labels):
        candidates = np.where(free & (object_labels == label), overlaps[row], 0.0)
        if candidates.size and candidates.max() >= iou_threshold:
            free[candidates.argmax()] = False
        elif not (within[row][crowd_labels == label] >= iou_threshold).any():
            false.append(_kind(overlaps[row], object_labels == label, iou_threshold))
    return int((~free).sum()), false


def _kind(overlaps: np.ndarray, same_class: np.ndarray, iou_threshold: float) -> str:
    if (overlaps[same_class] >= iou_threshold).any():
        return DUPLICATE
    if (overlaps[~same_class] >= iou_threshold).any():
        return CLASS
    return PLACE if (overlaps >= BACKGROUND_IOU).any() else BACKGROUND


def suppressed(results: Results, iou_threshold: float) -> Results:
    """The results with non-maximum suppression within each class, for detectors that come without."""
    return {
        image_id: ImageResult(
            result.truth, {depth: _suppress(found, iou_threshold) for depth, found in result.detections.items()}
        )
        for image_id, result in results.items()
    }


def _suppress(detections: Detections, iou_threshold: float) -> Detections:
    if len(detections) < 2:
        return detections
    boxes, scores, class_ids = detections.boxes_xyxy, detections.scores, detections.class_ids
    kept = class_wise_nms(boxes.astype(np.float64), scores, class_ids, iou_threshold)
    return Detections(boxes[kept], scores[kept], class_ids[kept])


def count_detections(results: Results, depth: str, score_threshold: float) -> int:
    """Detections of one configuration with a score of at least `score_threshold`."""
    return sum(int((result.detections[depth].scores >= score_threshold).sum()) for result in results.values())


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU [n, m] of boxes [n, 4] and [m, 4], xyxy."""
    shared = _intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def share_inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share [n, m] of each box of `a` [n, 4] that lies in each of `b` [m, 4], xyxy."""
    shared = _intersection(a, b)
    area = np.broadcast_to(_area(a)[:, None], shared.shape)
    return np.divide(shared, area, out=np.zeros_like(shared), where=area > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0.0, None).prod(axis=2)

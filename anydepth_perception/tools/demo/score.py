"""How well detections agree with the true boxes of a scene: recall and precision at IoU 0.5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_SIDE = 12.0
"""Pixels; smaller objects are neither asked for nor wrong to find."""
IOU = 0.5


@dataclass(frozen=True)
class LabelledBoxes:
    """Boxes of one image: xyxy [n, 4] pixels, class names [n], scores [n]."""

    boxes: np.ndarray
    names: tuple[str, ...]
    scores: np.ndarray


@dataclass
class Agreement:
    """Counts over images."""

    found: int = 0
    objects: int = 0
    correct: int = 0
    wrong: int = 0

    @property
    def recall(self) -> float:
        """Share of the objects that were found."""
        return self.found / self.objects if self.objects else 0.0

    @property
    def precision(self) -> float:
        """Share of the detections, those of neutral regions left out, that are objects."""
        detections = self.correct + self.wrong
        return self.correct / detections if detections else 0.0


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of a [n, 4] with every box of b [m, 4]: [n, m]."""
    intersection = _intersection(a, b)
    return intersection / np.maximum(_area(a)[:, None] + _area(b)[None] - intersection, 1e-9)


def compare(detections: LabelledBoxes, truth: LabelledBoxes, ignored: np.ndarray, total: Agreement) -> None:
    """Adds one image to `total`.

    Detections take, best score first, the free object of their class that they overlap most, by IoU of at least 0.5.
    Objects with a side of up to `MIN_SIDE` are neutral, as are detections that lie by half in an ignored region
    (xyxy [k, 4]).
    """
    asked = ((truth.boxes[:, 2:] - truth.boxes[:, :2]) > MIN_SIDE).all(axis=1)
    total.objects += int(asked.sum())
    free = np.ones(len(truth.names), bool)
    overlap = pairwise_iou(detections.boxes, truth.boxes)
    inside = _intersection(detections.boxes, ignored) / np.maximum(_area(detections.boxes), 1e-9)[:, None]
    names = np.array(truth.names, dtype=object)
    for index in np.argsort(-detections.scores, kind="stable"):
        candidates = overlap[index] * (free & (names == detections.names[index]))
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= IOU:
            free[best] = False
            if asked[best]:
                total.found += 1
                total.correct += 1
        elif not (inside[index] >= 0.5).any():
            total.wrong += 1


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.maximum(bottom_right - top_left, 0.0), axis=2)

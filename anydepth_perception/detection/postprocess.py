"""Turns the network's raw boxes and logits into detections in pixels of the source image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from anydepth_perception.detection.drawing import draw_boxes
from anydepth_perception.detection.preprocess import Geometry

_MAX_SHOWN = 8
"""Detections that a `repr` names."""


@dataclass(frozen=True, repr=False)
class Detections:
    """Detections of one image, best score first.

    boxes_xyxy float32 [n, 4]: left, top, right, bottom in source pixels, continuous, inside the image;
    scores float32 [n] in [0, 1]; class_ids int32 [n]; class_names by class id, empty where nobody knows them.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    def __repr__(self) -> str:
        shown = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores.tolist(), strict=True)]
        more = ", ..." if len(shown) > _MAX_SHOWN else ""
        return f"Detections({len(self)}{': ' if shown else ''}{', '.join(shown[:_MAX_SHOWN])}{more})"

    @property
    def names(self) -> list[str]:
        """Name of the class of each detection; its number where nobody knows the names."""
        known = self.class_names
        return [known[index] if index < len(known) else str(index) for index in self.class_ids.tolist()]

    def draw(self, image: np.ndarray, color: str = "rgb") -> np.ndarray:
        """A copy of `image` with boxes, names and scores drawn in.

        Args:
            image: uint8 [H, W, 3] in the order of `color`, or mono [H, W], of which the copy is [H, W, 3].
            color: `rgb` or `bgr`.
        """
        canvas = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image.copy()
        draw_boxes(canvas, self.boxes_xyxy, self.scores, self.class_ids, self.class_names, color)
        return canvas

    @classmethod
    def empty(cls, class_names: tuple[str, ...] = ()) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), class_names)


class Postprocessor:
    """Decodes raw outputs: threshold, class-wise NMS where the detector needs it, source pixels, clipping."""

    def __init__(
        self,
        *,
        nms: bool,
        iou_threshold: float = 0.7,
        multi_label: bool = False,
        max_candidates: int = 1000,
        class_names: Sequence[str] = (),
    ) -> None:
        """Sets what stays the same from image to image.

        Args:
            nms: True for a detector that repeats objects (yolo), False for one that doesn't (detr).
            iou_threshold: above this IoU, the lower-scored of two boxes of a class is dropped.
            multi_label: whether a box may be reported once for each class above the threshold, as COCO
                evaluation and detr's top-k over queries and classes have it; otherwise its best class alone.
            max_candidates: at most this many candidates, the best, reach the NMS.
            class_names: names by class id, which the detections carry.
        """
        self._nms = nms
        self._iou_threshold = iou_threshold
        self._multi_label = multi_label
        self._max_candidates = max_candidates
        self._class_names = tuple(class_names)

    def __call__(
        self,
        boxes: np.ndarray,
        logits: np.ndarray,
        geometry: Geometry,
        *,
        score_threshold: float | np.ndarray = 0.3,
        max_detections: int = 100,
    ) -> Detections:
        """Decodes one image.

        Args:
            boxes: float32 [1, N, 4], xyxy in [0, 1] of the network's input, may reach beyond it.
            logits: float32 [1, N, C], before the sigmoid.
            geometry: where the source image lies in the input, from the `Preprocessor`.
            score_threshold: lowest score reported, in [0, 1]; one number, or one per class [C].
            max_detections: at most this many are returned, the best.

        Raises:
            ValueError: a threshold or max_detections is out of range.
        """
        if max_detections < 1:
            raise ValueError(f"max_detections is {max_detections}, expected at least 1")
        # Comparing logits spares the sigmoid of N x C scores; few pass.
        num_classes = logits.shape[2]
        flat = np.flatnonzero(logits[0] >= threshold_logits(score_threshold, num_classes))
        if flat.size == 0:
            return Detections.empty(self._class_names)
        rows, class_ids = np.divmod(flat, num_classes)
        chosen = logits.reshape(-1)[flat]
        order = np.argsort(-chosen, kind="stable")
        if not self._multi_label:
            _, first = np.unique(rows[order], return_index=True)
            order = order[np.sort(first)]
        order = order[: self._max_candidates if self._nms else None]
        candidates = boxes[0, rows[order]].astype(np.float64)
        class_ids, chosen = class_ids[order], chosen[order]
        left, top, right, bottom = candidates.T
        sound = np.isfinite(candidates).all(axis=1) & (right > left) & (bottom > top)
        if not sound.all():
            candidates, class_ids, chosen = candidates[sound], class_ids[sound], chosen[sound]
        scores = 1.0 / (1.0 + np.exp(-np.clip(chosen.astype(np.float64), -500.0, 500.0)))
        if self._nms and len(candidates) > 1:
            kept = class_wise_nms(candidates, scores, class_ids, self._iou_threshold)
            candidates, class_ids, scores = candidates[kept], class_ids[kept], scores[kept]
        source = to_source(candidates, geometry)
        visible = np.flatnonzero((source[:, 2] > source[:, 0]) & (source[:, 3] > source[:, 1]))[:max_detections]
        return Detections(
            source[visible].astype(np.float32),
            scores[visible].astype(np.float32),
            class_ids[visible].astype(np.int32),
            self._class_names,
        )


def threshold_logits(score_threshold: float | np.ndarray, num_classes: int) -> np.ndarray:
    """Logits of score thresholds in [0, 1], float32 [] or [C]: 0 lets everything pass, 1 only certainty.

    Raises:
        ValueError: a threshold is outside [0, 1] or NaN, or there isn't one for each class.
    """
    scores = np.asarray(score_threshold, np.float64)
    if scores.ndim and scores.shape != (num_classes,):
        raise ValueError(f"score_threshold has the shape {list(scores.shape)}, expected one number or [{num_classes}]")
    if not np.all((scores >= 0.0) & (scores <= 1.0)):
        raise ValueError(f"score_threshold is {score_threshold}, expected numbers in [0, 1]")
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(scores) - np.log1p(-scores), np.float32)


def class_wise_nms(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Indices of the boxes that greedy non-maximum suppression within each class keeps, best score first.

    Boxes of different classes are moved apart, so that one pass serves all. `boxes` is float64 [n, 4] xyxy,
    n >= 1; `class_ids` an integer [n].
    """
    span = boxes.max() - min(0.0, boxes.min()) + 1.0
    moved = boxes + (class_ids * span)[:, None]
    moved[:, 2:] -= moved[:, :2]
    kept = cv2.dnn.NMSBoxes(moved.tolist(), scores.tolist(), 0.0, iou_threshold)
    return np.asarray(kept, np.intp).reshape(-1)


def to_source(boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Maps boxes [n, 4] from [0, 1] of the input to source pixels, clipped to the image; inverts `geometry`."""
    size = np.array([geometry.input_width, geometry.input_height] * 2, np.float64)
    offset = np.array([geometry.offset_x, geometry.offset_y] * 2)
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2)
    limit = np.array([geometry.source_width, geometry.source_height] * 2, np.float64)
    return np.clip((boxes * size - offset) / scale, 0.0, limit)

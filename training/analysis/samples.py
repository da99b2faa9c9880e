"""Pictures of what was found: boxes with classes and scores, the true ones behind them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from anydepth_perception.detection.detector import Detections
from training.evaluation.images import Truth

SIDE = 440
"""Pixels of the longer side of a picture."""

TRUTH_COLOUR = (255, 255, 255)
PALETTE = ((255, 99, 71), (60, 205, 90), (70, 150, 255), (255, 214, 10), (240, 90, 240), (50, 225, 225), (255, 150, 40))


def draw(
    image: np.ndarray,
    truth: Truth,
    detections: Detections,
    class_names: Sequence[str],
    *,
    score_threshold: float = 0.4,
) -> np.ndarray:
    """Draws true boxes (thin, white; crowds left out) and detections (by class) into an enlarged copy.

    Args:
        image: uint8 [H, W, 3] RGB.
        truth: what is in it.
        detections: what was found.
        class_names: by class id.
        score_threshold: lowest score drawn.
    """
    scale = SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    for x, y, width, height in truth.boxes_xywh[~truth.crowd] * scale:
        cv2.rectangle(picture, (round(x), round(y)), (round(x + width), round(y + height)), TRUTH_COLOUR, 1)
    for index in np.flatnonzero(detections.scores >= score_threshold)[::-1]:
        left, top, right, bottom = (round(float(side) * scale) for side in detections.boxes_xyxy[index])
        class_id = int(detections.class_ids[index])
        colour = PALETTE[class_id % len(PALETTE)]
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
        text = f"{class_names[class_id]} {100 * float(detections.scores[index]):.0f}"
        (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
        bottom_of_label = top if top > text_height + 6 else top + text_height + 6
        start = min(left, size[0] - text_width - 3)
        cv2.rectangle(
            picture, (start, bottom_of_label - text_height - 6), (start + text_width + 3, bottom_of_label), colour, -1
        )
        place = (start + 2, bottom_of_label - 4)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    return picture

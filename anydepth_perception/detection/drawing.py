"""Boxes and labels drawn into an image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, int, int]


def draw_boxes(
    canvas: np.ndarray,
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    color: str = "rgb",
) -> None:
    """Draws into `canvas`, uint8 [H, W, 3] in the order of `color`, `rgb` or `bgr`.

    Args:
        canvas: the image.
        boxes_xyxy: [n, 4], pixels.
        scores: [n], in [0, 1].
        class_ids: [n], of which each gets a colour of its own.
        class_names: names by class id; an id beyond them is drawn as a number.
        color: order of the colours.
    """
    rows = zip(np.rint(boxes_xyxy).astype(int).tolist(), scores.tolist(), class_ids.tolist(), strict=True)
    for (x1, y1, x2, y2), score, class_id in rows:
        of_class = _class_color(class_id, color)
        name = class_names[class_id] if class_id < len(class_names) else str(class_id)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), of_class, 2)
        put_text(canvas, f"{name} {score:.2f}", (x1, max(y1 - 4, 10)), of_class)


def put_text(canvas: np.ndarray, text: str, origin: tuple[int, int], color: Color) -> None:
    """Writes one line on a black ground; `origin` is its lower left corner, pixels."""
    if not text:
        return
    (width, height), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    x, y = origin
    cv2.rectangle(canvas, (x - 1, y - height - 2), (x + width + 1, y + descent), (0, 0, 0), -1)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)


def _class_color(class_id: int, color: str) -> Color:
    # Steps of the golden ratio around the colour circle keep neighbouring ids apart.
    hue = int(180 * (class_id * 0.618034 % 1.0))
    red, green, blue = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return (red, green, blue) if color == "rgb" else (blue, green, red)

"""The upright box around an outline as COCO's format gives one: polygons, or a mask by run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval import mask

MAX_COORDINATE = 1e9
"""Of a point, in pixels; beyond it an outline is taken for damaged."""


def outline_box(outline: Any) -> list[float] | None:
    """x, y, width and height of the box around polygons or a mask, in pixels; None for anything else.

    Args:
        outline: the value of `segmentation`: a list of polygons, each x0, y0, x1, y1, ... with three points or more
            (a single polygon by itself counts too), or a mask by run lengths, as a list of numbers or compressed.
    """
    if isinstance(outline, dict):
        return _mask_box(outline)
    if not isinstance(outline, list) or not outline:
        return None
    polygons = [outline] if not isinstance(outline[0], list) else outline
    points: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_is_number, polygon)):
            return None
        points += polygon
    corners = np.array(points, np.float64).reshape(-1, 2)
    low, high = corners.min(0), corners.max(0)
    return [*low.tolist(), *(high - low).tolist()]


def _mask_box(outline: dict[str, Any]) -> list[float] | None:
    size, counts = outline.get("size"), outline.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and 0 < side < 2**16 for side in size):
        return None
    try:
        if isinstance(counts, list):
            if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
                return None
            outline = mask.frPyObjects(outline, *size)
        elif not isinstance(counts, str):
            return None
        box = np.asarray(mask.toBbox(outline), np.float64).reshape(4)
    except (TypeError, ValueError, RuntimeError):
        return None
    return list(box.tolist())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_COORDINATE

"""Writes small folders of images with COCO annotations for the data tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def box(image: int, xywh: list[float], category: int = 1, **more: Any) -> dict[str, Any]:
    """An annotation."""
    return {"image_id": image, "category_id": category, "bbox": xywh, "area": xywh[2] * xywh[3], **more}


def write_folder(
    folder: Path,
    annotations: list[dict[str, Any]],
    *,
    sizes: tuple[tuple[int, int], ...] = ((40, 30), (30, 40)),
    categories: tuple[tuple[int, str], ...] = ((1, "box"), (7, "ball")),
    suffix: str = ".png",
) -> Path:
    """Images of noise, 11, 12, ... of the given (width, height), with annotations; returns the JSON file."""
    random = np.random.default_rng(0)
    images = []
    for index, (width, height) in enumerate(sizes):
        name = f"{index}{suffix}"
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        assert cv2.imwrite(str(folder / name), pixels)
        images.append({"id": 11 + index, "file_name": name, "width": width, "height": height})
    numbered = [{"id": 100 + index, **entry} for index, entry in enumerate(annotations)]
    content = {
        "images": images,
        "annotations": numbered,
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path

"""Builds a detector of either family by its name."""

from __future__ import annotations

from training.models.detector import AnyDepthDetector
from training.models.detr import SIZES as DETR_SIZES
from training.models.detr import AnyDepthDetr
from training.models.fine import FineSettings
from training.models.yolo import AnyDepthYolo
from training.models.yolo_blocks import SIZES as YOLO_SIZES

MODEL_NAMES = (*(f"detr-{size}" for size in DETR_SIZES), *(f"yolo-{size}" for size in YOLO_SIZES))


def build_model(
    name: str, num_classes: int, *, fine: FineSettings | None = FineSettings(), any_depth: bool = True
) -> AnyDepthDetector:
    """Builds the detector of a name like `yolo-t` or `detr-r50`, with random weights.

    Args:
        name: one of `MODEL_NAMES`.
        num_classes: classes of the head.
        fine: settings of FINE in the neck; None leaves it out.
        any_depth: essential paths with their own batch norms and aggregators; False is the plain baseline.

    Raises:
        ValueError: an unknown name.
    """
    if name not in MODEL_NAMES:
        raise ValueError(f"unknown model {name!r}; accepted are {', '.join(MODEL_NAMES)}")
    family, _, size = name.partition("-")
    if family == "yolo":
        return AnyDepthYolo(size, num_classes, fine=fine, any_depth=any_depth)
    return AnyDepthDetr(size, num_classes, fine=fine, any_depth=any_depth)

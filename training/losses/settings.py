"""Weights of the training losses, as a recipe gives them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LossSettings:
    """Weights of the detection loss (YOLOv12's by default) and of the base-net's pass.

    Attributes:
        min_side: pixels; boxes count as at least this wide and high when cells are looked for.
        base_weight: weight of the base-net's loss on the labels (alpha of equation 5), beside the super-net's.
        distillation_weight: weight of the distillation terms in the base-net's pass.
        l1_weight: DETR's L1 distance of boxes.
        giou_weight: DETR's 1 - GIoU.
        varifocal_weight: DETR's class term.
        denoising: DETR's denoising queries.
        times_batch: multiply every term by the batch size, as YOLOv12's recipe does; its learning rate and clipping
            are meant for that.
    """

    box_weight: float = 7.5
    class_weight: float = 0.5
    dfl_weight: float = 1.5
    topk: int = 10
    min_side: float = 0.0
    base_weight: float = 1.0
    distillation_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    varifocal_weight: float = 1.0
    denoising: bool = True
    times_batch: bool = False

"""YOLO's detection loss: class BCE, CIoU and distribution focal loss on task-aligned targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.assigner import Assignment, TaskAlignedAssigner
from training.losses.normaliser import shared_normaliser
from training.models.boxes import complete_iou
from training.models.targets import Targets


def distribution_focal_loss(bins: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy to the two bins around each distance, weighted by closeness.

    Args:
        bins: [P, 4, R] logits.
        distances: [P, 4] in strides, within [0, R - 1).

    Returns:
        [P], the mean over the four sides. Source: Li et al., "Generalized Focal Loss", equation 6.
    """
    left = distances.floor().long()
    right_weight = distances - left
    log_probabilities = bins.log_softmax(dim=-1)
    left_loss = -log_probabilities.gather(-1, left[..., None]).squeeze(-1)
    right_loss = -log_probabilities.gather(-1, left[..., None] + 1).squeeze(-1)
    return (left_loss * (1 - right_weight) + right_loss * right_weight).mean(dim=-1)


@dataclass(frozen=True)
class YoloLoss:
    """Weights of the terms, and the assigner. The defaults are YOLOv12's.

    Cells without an object whose centre lies in an ignored region take no part in the class term.
    """

    box_weight: float = 7.5
    class_weight: float = 0.5
    dfl_weight: float = 1.5
    assigner: TaskAlignedAssigner = field(default_factory=TaskAlignedAssigner)

    def __call__(self, outputs: Mapping[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Loss terms, weighted, as scalars: `class`, `box`, `dfl`; their sum is the loss.

        Each term is normalised by the sum of the class targets of the batch, over all processes (at least 1).
        `outputs` is what `YoloHead` returns.
        """
        return self.terms(outputs, targets, self.assign(outputs, targets))

    def assign(self, outputs: Mapping[str, Any], targets: Targets) -> Assignment:
        """Assigns the cells of `outputs` to the objects of `targets`."""
        return self.assigner.assign(
            outputs["logits"].detach().sigmoid(), outputs["boxes"].detach(), outputs["points"], targets
        )

    def terms(self, outputs: Mapping[str, Any], targets: Targets, assignment: Assignment) -> dict[str, Tensor]:
        """The loss terms for a given assignment."""
        logits, points, strides = outputs["logits"], outputs["points"], outputs["strides"]
        foreground = assignment.foreground
        normaliser = shared_normaliser(assignment.scores.sum())

        counted = foreground | ~points_in_boxes(points, targets.ignored)
        bce = F.binary_cross_entropy_with_logits(logits, assignment.scores, reduction="none")
        class_loss = (bce.sum(dim=2) * counted).sum() / normaliser

        weight = assignment.scores.sum(dim=2)[foreground]
        boxes = assignment.boxes[foreground]
        box_loss = ((1 - complete_iou(outputs["boxes"][foreground], boxes)) * weight).sum() / normaliser

        bins = outputs["distances"][foreground]
        point = points.expand(*foreground.shape, 2)[foreground]
        stride = strides.expand(foreground.shape)[foreground][:, None]
        distances = torch.cat([point - boxes[:, :2], boxes[:, 2:] - point], dim=1) / stride
        distances = distances.clamp(0, bins.shape[-1] - 1 - 0.01)
        dfl_loss = (distribution_focal_loss(bins, distances) * weight).sum() / normaliser
        return {
            "class": self.class_weight * class_loss,
            "box": self.box_weight * box_loss,
            "dfl": self.dfl_weight * dfl_loss,
        }


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """[B, N] bool: points [N, 2] that lie in any of the boxes [B, K, 4] of their image."""
    x, y = points[:, 0, None], points[:, 1, None]
    boxes = boxes[:, None]
    inside = (x >= boxes[..., 0]) & (x < boxes[..., 2]) & (y >= boxes[..., 1]) & (y < boxes[..., 3])
    return inside.any(dim=-1)

"""Task-aligned assignment (TAL): which cells of a dense head are responsible for which object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.models.boxes import complete_iou
from training.models.targets import Targets


@dataclass(frozen=True)
class Assignment:
    """What each of N cells of B images is to predict.

    Attributes:
        foreground: [B, N] bool, cells that are responsible for an object.
        object_index: [B, N] int64, which object of the image; 0 where there is none.
        boxes: [B, N, 4], the object's box.
        scores: [B, N, C], the class target in [0, 1]; zero for background.
    """

    foreground: Tensor
    object_index: Tensor
    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class TaskAlignedAssigner:
    """Assigns each object the `topk` cells inside its box with the best alignment score^alpha * CIoU^beta.

    A cell that several objects want goes to the one it overlaps most. The class target of a cell is its
    alignment, scaled so that the best cell of an object reaches that object's best IoU (TOOD, section 3.3).
    With `min_side` > 0 a box counts as at least that many pixels a side when cells inside it are looked for,
    so that an object smaller than a cell still has one.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    min_side: float = 0.0

    @torch.no_grad()
    def assign(self, scores: Tensor, boxes: Tensor, points: Tensor, targets: Targets) -> Assignment:
        """Assigns cells from what they predict.

        Args:
            scores: [B, N, C] class probabilities.
            boxes: [B, N, 4] predicted boxes, xyxy pixels.
            points: [N, 2] cell centres, pixels.
            targets: objects of the batch.
        """
        batch, num_cells, num_classes = scores.shape
        num_objects = targets.boxes.shape[1]
        if num_objects == 0:
            empty = torch.zeros(batch, num_cells, dtype=torch.long, device=scores.device)
            return Assignment(empty.bool(), empty, torch.zeros_like(boxes), torch.zeros_like(scores))

        inside = self._inside(points, targets)
        labels = targets.labels.clamp(min=0)
        class_scores = scores.transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, num_cells))
        overlap = complete_iou(targets.boxes[:, :, None], boxes[:, None]).clamp(min=0) * inside
        alignment = class_scores.pow(self.alpha) * overlap.pow(self.beta) * inside

        k = min(self.topk, num_cells)
        # Among equals (an untrained network aligns nowhere) a candidate inside the box comes first.
        best = (alignment + 1e-12 * inside).topk(k, dim=2).indices
        chosen = torch.zeros_like(inside).scatter_(2, best, True) & inside

        # A cell of several objects keeps the one it overlaps most.
        object_index = torch.where(chosen, overlap, -1.0).argmax(dim=1)
        chosen &= torch.nn.functional.one_hot(object_index, num_objects).transpose(1, 2).bool()
        foreground = chosen.any(dim=1)

        alignment = alignment * chosen
        best_alignment = alignment.amax(dim=2, keepdim=True)
        best_overlap = (overlap * chosen).amax(dim=2, keepdim=True)
        strength = (alignment * best_overlap / (best_alignment + 1e-9)).amax(dim=1)
        cell_labels = labels.gather(1, object_index)
        target_scores = torch.nn.functional.one_hot(cell_labels, num_classes) * (strength * foreground)[..., None]
        target_boxes = targets.boxes.gather(1, object_index[..., None].expand(-1, -1, 4))
        return Assignment(foreground, object_index * foreground, target_boxes, target_scores.to(scores.dtype))

    def _inside(self, points: Tensor, targets: Targets) -> Tensor:
        """[B, M, N] bool: cell centres strictly inside each object's box, widened to `min_side`."""
        centre = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2
        half = ((targets.boxes[..., 2:] - targets.boxes[..., :2]) / 2).clamp(min=self.min_side / 2)
        distance = (points - centre[:, :, None]).abs()
        return (distance < half[:, :, None]).all(dim=-1) & targets.valid[..., None]

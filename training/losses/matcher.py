"""Hungarian matching of queries with objects, one to one, per image (DETR)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from training.models.boxes import cxcywh_to_xyxy, generalized_iou
from training.models.targets import Targets


@dataclass(frozen=True)
class Match:
    """Matched pairs of one image: query `queries[i]` stands for object `objects[i]`, both int64 [n], objects rising."""

    queries: Tensor
    objects: Tensor


@dataclass(frozen=True)
class HungarianMatcher:
    """Weights of the matching cost; the defaults are RT-DETR's.

    The cost of a pair is class_weight * focal + l1_weight * L1 + giou_weight * -GIoU, where focal is what the focal
    loss of the object's class gains by turning from negative to positive.
    """

    class_weight: float = 2.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0

    @torch.no_grad()
    def __call__(self, outputs: Mapping[str, Tensor], boxes_cxcywh: Tensor, targets: Targets) -> list[Match]:
        """Matches every image of a batch.

        Args:
            outputs: `logits` [B, Q, C] and `boxes_cxcywh` [B, Q, 4] in [0, 1].
            boxes_cxcywh: [B, M, 4] the objects' boxes in [0, 1].
            targets: their labels; padding is passed over.

        Raises:
            ValueError: a prediction is not finite.
        """
        matches = []
        for image in range(len(targets.labels)):
            valid = targets.valid[image]
            cost = self.cost(
                outputs["logits"][image],
                outputs["boxes_cxcywh"][image],
                targets.labels[image][valid],
                boxes_cxcywh[image][valid],
            )
            if not torch.isfinite(cost).all():
                raise ValueError(f"the predictions for image {image} of the batch are not finite")
            queries, objects = (torch.as_tensor(index, device=cost.device) for index in _solve(cost))
            order = torch.argsort(objects)
            matches.append(Match(queries[order], objects[order]))
        return matches

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, object_boxes: Tensor) -> Tensor:
        """Cost [Q, n] of every pair, from logits [Q, C], boxes [Q, 4], labels [n] and object_boxes [n, 4]."""
        probability = logits.float().sigmoid()[:, labels]
        positive = self.alpha * (1 - probability) ** self.gamma * -(probability + 1e-8).log()
        negative = (1 - self.alpha) * probability**self.gamma * -(1 - probability + 1e-8).log()
        boxes = boxes.float()
        l1 = (boxes[:, None] - object_boxes[None]).abs().sum(dim=-1)
        overlap = generalized_iou(cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(object_boxes)[None])
        return self.class_weight * (positive - negative) + self.l1_weight * l1 - self.giou_weight * overlap


def _solve(cost: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return linear_sum_assignment(cost.cpu().numpy())

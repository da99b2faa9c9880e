"""Contrastive denoising: noisy copies of the labelled boxes as extra queries, in groups, while training (DINO)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_DENOISING = 100
"""Positive queries aimed at, over all groups."""

LABEL_FLIP = 0.25
"""Probability that a label is replaced by a random one."""


@dataclass(frozen=True)
class DenoisingQueries:
    """Noisy queries of a batch; D of them, in groups of positives followed by negatives, G boxes each at most.

    Attributes:
        labels: [B, D], noisy class ids; the number of classes where an image has fewer than G boxes.
        boxes: [B, D, 4], noisy cxcywh in [0, 1].
        positives: per image, the positions [num_groups * n] of its positive queries.
        assigned: per image, the index [num_groups * n] of the labelled box that each positive is to restore.
        num_groups: number of groups.
    """

    labels: Tensor
    boxes: Tensor
    positives: tuple[Tensor, ...]
    assigned: tuple[Tensor, ...]
    num_groups: int


def denoising_queries(
    labels: Sequence[Tensor], boxes: Sequence[Tensor], num_classes: int, *, num_denoising: int = NUM_DENOISING
) -> DenoisingQueries | None:
    """Noisy copies of the labelled boxes of a batch; None where no image has any.

    There are max(1, num_denoising // G) groups, G the largest number of boxes in an image. Corners of positives move
    by up to half the box's side, those of negatives by half to a whole; labels of both flip with probability 0.25.

    Args:
        labels: per image, class ids [n].
        boxes: per image, cxcywh in [0, 1], [n, 4].
        num_classes: also the label of the padding.
        num_denoising: positive queries aimed at.
    """
    counts = [len(image_labels) for image_labels in labels]
    largest = max(counts, default=0)
    if largest == 0:
        return None
    num_groups = max(1, num_denoising // largest)
    device = labels[0].device
    padded_labels = torch.full((len(counts), largest), num_classes, dtype=torch.long, device=device)
    padded_boxes = torch.zeros(len(counts), largest, 4, dtype=boxes[0].dtype, device=device)
    for i, count in enumerate(counts):
        padded_labels[i, :count] = labels[i]
        padded_boxes[i, :count] = boxes[i]
    clean_labels = padded_labels.tile(1, 2 * num_groups)
    clean_boxes = padded_boxes.tile(1, 2 * num_groups, 1)
    negative = torch.tensor([0, 1], device=device).repeat_interleave(largest).tile(num_groups)[None, :, None]
    flipped = (torch.rand(clean_labels.shape, device=device) < LABEL_FLIP) & (clean_labels < num_classes)
    random_labels = torch.randint(num_classes, clean_labels.shape, device=device)
    starts = torch.arange(num_groups, device=device)[:, None] * 2 * largest
    return DenoisingQueries(
        labels=torch.where(flipped, random_labels, clean_labels),
        boxes=_noisy(clean_boxes, negative),
        positives=tuple((starts + torch.arange(count, device=device)).flatten() for count in counts),
        assigned=tuple(torch.arange(count, device=device).tile(num_groups) for count in counts),
        num_groups=num_groups,
    )


def _noisy(boxes: Tensor, negative: Tensor) -> Tensor:
    """Moves each corner of the boxes [B, D, 4] by U(0, 1) half sides, negatives (1, not 0) by one half side more."""
    half = boxes[..., 2:].tile(1, 1, 2) / 2
    corners = boxes[..., :2].tile(1, 1, 2) + torch.cat([-half[..., :2], half[..., 2:]], dim=2)
    sign = torch.randint(2, boxes.shape, device=boxes.device) * 2 - 1
    corners = (corners + sign * (torch.rand_like(boxes) + negative) * half).clamp(0, 1)
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat([(low + high) / 2, (high - low).clamp(min=0)], dim=2)


def attention_mask(num_denoising: int, num_groups: int, num_queries: int, device: torch.device) -> Tensor:
    """Which of the D + Q queries may look at which, [D + Q, D + Q], True where allowed.

    Denoising queries see their own group and the matching queries; matching queries see only one another.
    """
    group = torch.arange(num_denoising, device=device) // (num_denoising // num_groups)
    allowed = torch.ones(num_denoising + num_queries, num_denoising + num_queries, dtype=torch.bool, device=device)
    allowed[num_denoising:, :num_denoising] = False
    allowed[:num_denoising, :num_denoising] = group[:, None] == group[None, :]
    return allowed

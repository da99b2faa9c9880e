"""Overlap of boxes, all in xyxy form and any one unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Areas of boxes [..., 4]; zero for inverted ones."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def box_iou(a: Tensor, b: Tensor, *, eps: float = 1e-9) -> Tensor:
    """Intersection over union of boxes [..., 4] paired by broadcasting; in [0, 1]."""
    top_left = torch.maximum(a[..., :2], b[..., :2])
    bottom_right = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    return intersection / (box_area(a) + box_area(b) - intersection + eps)


def complete_iou(a: Tensor, b: Tensor, *, eps: float = 1e-9) -> Tensor:
    """CIoU of boxes [..., 4] paired by broadcasting: IoU less the penalties for centre distance and aspect ratio.

    The weight of the aspect term is held constant, as its authors do. Range (-2, 1].
    Source: Zheng et al., "Distance-IoU Loss", equations 8 to 12.
    """
    iou = box_iou(a, b, eps=eps)
    enclosing = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = enclosing.square().sum(dim=-1) + eps
    distance = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(dim=-1) / 4
    a_size = (a[..., 2:] - a[..., :2]).clamp(min=eps)
    b_size = (b[..., 2:] - b[..., :2]).clamp(min=eps)
    angle = torch.atan(a_size[..., 0] / a_size[..., 1]) - torch.atan(b_size[..., 0] / b_size[..., 1])
    aspect = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + eps)
    return iou - distance / diagonal - weight * aspect


def generalized_iou(a: Tensor, b: Tensor, *, eps: float = 1e-9) -> Tensor:
    """GIoU of boxes [..., 4] paired by broadcasting: IoU less the empty share of the enclosing box, in (-1, 1].

    Source: Rezatofighi et al., "Generalized Intersection over Union", algorithm 1.
    """
    top_left = torch.maximum(a[..., :2], b[..., :2])
    bottom_right = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    union = box_area(a) + box_area(b) - intersection
    enclosing = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(dim=-1)
    return intersection / (union + eps) - (enclosing - union) / (enclosing + eps)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] from centre and size to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] from corners to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)

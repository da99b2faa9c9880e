"""YOLO's detection head: per level a box branch (distribution over distances) and a class branch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.models.yolo_blocks import conv

STRIDES = (8, 16, 32)


def anchor_points(sizes: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Cell centres [N, 2] (x, y) in network pixels and their strides [N], level by level, row-major."""
    points, strides = [], []
    for (height, width), stride in zip(sizes, STRIDES, strict=True):
        y, x = torch.meshgrid(
            torch.arange(height, dtype=torch.float32, device=device) + 0.5,
            torch.arange(width, dtype=torch.float32, device=device) + 0.5,
            indexing="ij",
        )
        points.append(torch.stack([x, y], dim=-1).reshape(-1, 2) * stride)
        strides.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(points), torch.cat(strides)


class YoloHead(nn.Module):
    """Predicts, per cell of strides 8, 16 and 32, the distances to the four sides and the class logits.

    Each distance is the expectation of a distribution over `reg_max` bins, in strides (DFL).
    """

    reg_max = 16

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        box_channels = max(16, in_channels[0] // 4, 4 * self.reg_max)
        class_channels = max(in_channels[0], min(num_classes, 100))
        self.box = nn.ModuleList()
        self.cls = nn.ModuleList()
        for channels, stride in zip(in_channels, STRIDES, strict=True):
            box_output = nn.Conv2d(box_channels, 4 * self.reg_max, 1)
            assert box_output.bias is not None
            nn.init.ones_(box_output.bias)
            class_output = nn.Conv2d(class_channels, num_classes, 1)
            assert class_output.bias is not None
            nn.init.constant_(class_output.bias, math.log(5 / num_classes / (640 / stride) ** 2))
            self.box.append(
                nn.Sequential(conv(channels, box_channels, 3), conv(box_channels, box_channels, 3), box_output)
            )
            self.cls.append(
                nn.Sequential(
                    conv(channels, channels, 3, groups=channels),
                    conv(channels, class_channels),
                    conv(class_channels, class_channels, 3, groups=class_channels),
                    conv(class_channels, class_channels),
                    class_output,
                )
            )
        # Counted among the parameters, as the published counts do, but never trained.
        self.bins = nn.Parameter(torch.arange(self.reg_max, dtype=torch.float32), requires_grad=False)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Predicts from P3, P4, P5.

        Returns:
            `logits` [B, N, C]; `distances` [B, N, 4, reg_max], logits of the bins of left, top, right, bottom;
            `boxes` [B, N, 4], xyxy in network pixels; `points` [N, 2] and `strides` [N] of the cells.
        """
        distances = [branch(x).flatten(2) for branch, x in zip(self.box, features, strict=True)]
        logits = [branch(x).flatten(2) for branch, x in zip(self.cls, features, strict=True)]
        bins = torch.cat(distances, dim=2).transpose(1, 2).unflatten(2, (4, self.reg_max))
        points, strides = anchor_points([(x.shape[2], x.shape[3]) for x in features], features[0].device)
        offsets = (bins.softmax(dim=3) * self.bins).sum(dim=3) * strides[:, None]
        boxes = torch.cat([points - offsets[..., :2], points + offsets[..., 2:]], dim=2)
        return {
            "logits": torch.cat(logits, dim=2).transpose(1, 2),
            "distances": bins,
            "boxes": boxes,
            "points": points,
            "strides": strides,
        }

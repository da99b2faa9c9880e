"""The segments of AnyDepth-YOLO: those of its feature maps, and its head."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from anydepth_perception.depth.space import FULL
from training.models.folding import fold
from training.models.segments import SegmentModule, trunk_segments
from training.models.yolo import HEAD_INPUTS, AnyDepthYolo
from training.models.yolo_head import YoloHead


class YoloOutputs(nn.Module):
    """YOLO's head: boxes [1, N, 4] xyxy in [0, 1] of the input, logits [1, N, C]."""

    def __init__(self, head: YoloHead, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.head = fold(head, FULL)
        height, width = image_size
        self.register_buffer("scale", torch.tensor([width, height, width, height], dtype=torch.float32))

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts from P3, P4, P5."""
        outputs = self.head(features)
        return outputs["boxes"] / self.scale, outputs["logits"]


def yolo_segments(model: AnyDepthYolo, image_size: tuple[int, int]) -> Iterator[SegmentModule]:
    """Every segment in execution order, for images of `image_size` (height, width)."""
    yield from trunk_segments(model)
    yield SegmentModule("head", YoloOutputs(model.head, image_size), HEAD_INPUTS, ("boxes", "logits"))

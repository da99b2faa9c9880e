"""RT-DETR's decoder: queries refined layer by layer, each layer an exit with heads of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.attention import MultiHeadAttention, MultiLayerPerceptron
from training.models.conv import ConvNorm
from training.models.deformable import DeformableAttention
from training.models.denoising import DenoisingQueries, attention_mask
from training.models.query_selection import QuerySelection, SelectedQueries, box_head, class_head, inverse_sigmoid

CHANNELS = 256
NUM_HEADS = 8
NUM_LEVELS = 3
NUM_POINTS = 4
NUM_QUERIES = 300
FFN_CHANNELS = 1024


class DecoderLayer(nn.Module):
    """Self-attention among the queries, deformable attention to the memory, feed-forward part; each post-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(CHANNELS, NUM_HEADS)
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.cross_attention = DeformableAttention(
            CHANNELS, num_heads=NUM_HEADS, num_levels=NUM_LEVELS, num_points=NUM_POINTS
        )
        self.norm2 = nn.LayerNorm(CHANNELS)
        self.linear1 = nn.Linear(CHANNELS, FFN_CHANNELS)
        self.linear2 = nn.Linear(FFN_CHANNELS, CHANNELS)
        self.norm3 = nn.LayerNorm(CHANNELS)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes: Sequence[tuple[int, int]],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Refines queries [B, Q, C] at `position` [B, Q, C] around `boxes` [B, Q, 4]; see `DeformableAttention`."""
        placed = x + position
        x = self.norm1(x + self.self_attention(placed, placed, x, mask))
        x = self.norm2(x + self.cross_attention(x + position, boxes, memory, sizes))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class Decoder(nn.Module):
    """Level projections, query selection, and `num_layers` layers; every layer is a valid exit.

    Each layer reads the boxes of the layer before it, detached, and puts out better ones.

    Args:
        in_channels: of the encoder's levels P3, P4, P5.
        num_classes: classes of the heads.
        num_layers: decoder layers, L.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, num_layers: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.project = nn.ModuleList(ConvNorm(channels, CHANNELS) for channels in in_channels)
        self.selection = QuerySelection(CHANNELS, num_classes, NUM_QUERIES)
        self.query_position = MultiLayerPerceptron(4, 2 * CHANNELS, CHANNELS, 2)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(num_layers))
        self.score = nn.ModuleList(class_head(CHANNELS, num_classes) for _ in range(num_layers))
        self.box = nn.ModuleList(box_head(CHANNELS) for _ in range(num_layers))
        self.denoising_embedding = nn.Embedding(num_classes + 1, CHANNELS, padding_idx=num_classes)
        for weight in self.query_position.parameters():
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)

    def memory(self, features: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """The cells [B, N, 256] of all levels, projected, and the (height, width) of each level."""
        levels = [project(x) for project, x in zip(self.project, features, strict=True)]
        cells = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1)
        return cells, [(x.shape[2], x.shape[3]) for x in levels]

    def step(
        self,
        index: int,
        x: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes: Sequence[tuple[int, int]],
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Layer `index` (from 0): the refined queries [B, Q, C] and the offset [B, Q, 4] of their boxes' logits."""
        x = self.layers[index](x, self.query_position(boxes), boxes, memory, sizes, mask)
        return x, self.box[index](x)

    def forward(
        self, features: Sequence[Tensor], num_layers: int, denoising: DenoisingQueries | None = None
    ) -> dict[str, Any]:
        """Detects in the levels P3, P4, P5 and reads exit `num_layers`.

        Returns:
            `logits` [B, Q, C] and `boxes_cxcywh` [B, Q, 4] in [0, 1]. While training also `layers`, the same per
            layer up to the exit, `encoder`, the same of query selection, and with denoising queries
            `denoising_layers`, the same for them. Boxes of `layers` carry gradients to the layer before as well.
        """
        memory, sizes = self.memory(features)
        selected = self.selection(memory, sizes)
        x, boxes, mask, num_denoising = selected.content.detach(), selected.boxes.detach(), None, 0
        if denoising is not None:
            num_denoising = denoising.labels.shape[1]
            x = torch.cat([self.denoising_embedding(denoising.labels), x], dim=1)
            boxes = torch.cat([denoising.boxes, boxes], dim=1)
            mask = attention_mask(num_denoising, denoising.num_groups, boxes.shape[1] - num_denoising, x.device)
        if not self.training:
            for index in range(num_layers):
                x, offset = self.step(index, x, boxes, memory, sizes, mask)
                boxes = (offset + inverse_sigmoid(boxes)).sigmoid()
            return {"logits": self.score[num_layers - 1](x), "boxes_cxcywh": boxes}
        return self._train(x, boxes, memory, sizes, mask, num_layers, num_denoising, selected)

    def _train(
        self,
        x: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes: Sequence[tuple[int, int]],
        mask: Tensor | None,
        num_layers: int,
        num_denoising: int,
        selected: SelectedQueries,
    ) -> dict[str, Any]:
        layers, denoising_layers, previous = [], [], boxes
        for index in range(num_layers):
            x, offset = self.step(index, x, boxes, memory, sizes, mask)
            logits, attached = self.score[index](x), (offset + inverse_sigmoid(previous)).sigmoid()
            layers.append({"logits": logits[:, num_denoising:], "boxes_cxcywh": attached[:, num_denoising:]})
            if num_denoising:
                denoising_layers.append(
                    {"logits": logits[:, :num_denoising], "boxes_cxcywh": attached[:, :num_denoising]}
                )
            previous = (offset + inverse_sigmoid(boxes)).sigmoid()
            boxes = previous.detach()
        outputs = {**layers[-1], "layers": layers}
        outputs["encoder"] = {"logits": selected.logits, "boxes_cxcywh": selected.boxes}
        if denoising_layers:
            outputs["denoising_layers"] = denoising_layers
        return outputs

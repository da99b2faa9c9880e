"""Query selection: the encoder's most promising cells become the decoder's queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.attention import MultiLayerPerceptron

PRIOR_PROBABILITY = 0.01
"""Of every class at the start of training, by the bias of the class heads."""

_ANCHOR_SIZE = 0.05
_ANCHOR_MARGIN = 0.01


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of `x` in [0, 1]; within `eps` of either end it is that of `eps`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def class_head(channels: int, num_classes: int) -> nn.Linear:
    """A linear class head whose bias gives every class the prior probability."""
    head = nn.Linear(channels, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
    return head


def box_head(channels: int) -> MultiLayerPerceptron:
    """A three-layer head for box offsets, whose last layer starts at zero."""
    head = MultiLayerPerceptron(channels, channels, 4, 3)
    for parameter in head.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return head


def anchor_logits(sizes: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [1, N, 4] of one anchor cxcywh per cell, and which of them are valid [1, N, 1].

    An anchor is centred on its cell, 0.05 * 2^level of the image wide and high. It is valid where all four values
    lie in (0.01, 0.99); the logits of the others are infinite.
    """
    levels = []
    for level, (height, width) in enumerate(sizes):
        y, x = torch.meshgrid(
            (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height,
            (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width,
            indexing="ij",
        )
        size = torch.full_like(x, _ANCHOR_SIZE * 2.0**level)
        levels.append(torch.stack([x, y, size, size], dim=2).reshape(1, height * width, 4))
    anchors = torch.cat(levels, dim=1)
    valid = ((anchors > _ANCHOR_MARGIN) & (anchors < 1 - _ANCHOR_MARGIN)).all(dim=2, keepdim=True)
    return torch.log(anchors / (1 - anchors)).masked_fill(~valid, math.inf), valid


@dataclass(frozen=True)
class SelectedQueries:
    """The decoder's start.

    Attributes:
        content: [B, Q, C].
        boxes: [B, Q, 4], cxcywh in [0, 1].
        logits: [B, Q, num_classes], of the encoder's class head.
    """

    content: Tensor
    boxes: Tensor
    logits: Tensor


class QuerySelection(nn.Module):
    """Scores every cell and takes the `num_queries` with the highest class score, best first.

    The published network runs its box head on all cells. Only the selected ones are ever read, so it runs on those
    here; `dense_boxes` restores the published order of work (same result, 2.2 GFLOPs more at 640x640), for counting.
    An image with fewer cells than queries gives as many queries as it has cells.
    """

    def __init__(self, channels: int, num_classes: int, num_queries: int) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.dense_boxes = False
        self.output = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.score = class_head(channels, num_classes)
        self.box = box_head(channels)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, memory: Tensor, sizes: Sequence[tuple[int, int]]) -> SelectedQueries:
        """Selects from the cells [B, N, C] of all levels, whose (height, width) are `sizes`."""
        anchors, valid = anchor_logits(sizes, memory)
        cells = self.norm(self.output(memory * valid.to(memory.dtype)))
        logits = self.score(cells)
        best = logits.amax(dim=2).topk(min(self.num_queries, logits.shape[1]), dim=1).indices[:, :, None]

        def take(x: Tensor) -> Tensor:
            return x.expand(best.shape[0], -1, -1).gather(1, best.expand(-1, -1, x.shape[2]))

        content = take(cells)
        offsets = take(self.box(cells)) if self.dense_boxes else self.box(content)
        return SelectedQueries(content, (offsets + take(anchors)).sigmoid(), take(logits))

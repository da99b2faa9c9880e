"""Deformable attention: each query samples a few points of every level, around its reference box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention with box references (Deformable DETR, as RT-DETR uses it).

    Per head, level and point, a linear layer of the query gives an offset in units of the reference box:
    position = centre + offset / num_points * size / 2. Values are sampled bilinearly, zero outside of the map, and
    weighted by a softmax over all levels and points.
    """

    def __init__(self, channels: int, *, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.offsets = nn.Linear(channels, 2 * samples)
        self.weights = nn.Linear(channels, samples)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._initialise()

    def _initialise(self) -> None:
        """Heads look in different directions, points at growing distances, all with equal weight."""
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=1)
        directions = directions / directions.abs().amax(dim=1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1, dtype=torch.float32)[:, None]
        grid = (directions[:, None, None] * distances).expand(-1, self.num_levels, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(grid.flatten())
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, reference: Tensor, memory: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Attends from queries to all levels.

        Args:
            query: [B, Q, C].
            reference: [B, Q, 4], boxes cxcywh in [0, 1].
            memory: [B, N, C], the cells of all levels, row-major, level by level.
            sizes: (height, width) of each level; their areas sum up to N.

        Returns:
            [B, Q, C].
        """
        batch, num_queries, channels = query.shape
        heads, points = self.num_heads, self.num_points
        offsets = self.offsets(query).reshape(batch, num_queries, heads, self.num_levels, points, 2)
        weights = self.weights(query).reshape(batch, num_queries, heads, self.num_levels * points).softmax(dim=3)
        box = reference[:, :, None, None, None]
        positions = box[..., :2] + offsets / points * box[..., 2:] * 0.5
        grids = (2 * positions - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
        values = self.value(memory).split([height * width for height, width in sizes], dim=1)
        sampled = [
            F.grid_sample(
                value.transpose(1, 2).reshape(batch * heads, channels // heads, height, width),
                grid,
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )
            for value, grid, (height, width) in zip(values, grids, sizes, strict=True)
        ]
        weights = weights.transpose(1, 2).reshape(batch * heads, 1, num_queries, -1)
        attended = (torch.cat(sampled, dim=3) * weights).sum(dim=3)
        return self.output(attended.reshape(batch, channels, num_queries).transpose(1, 2))

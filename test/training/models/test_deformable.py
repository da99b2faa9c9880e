"""Deformable attention against a loop that samples by hand, and its start."""

from __future__ import annotations

import math

import pytest
import torch
from random_weights import randomise_everything
from torch import Tensor

from training.models.deformable import DeformableAttention

HEADS, LEVELS, POINTS, CHANNELS = 4, 3, 2, 16
SIZES = [(5, 7), (3, 4), (2, 1)]


@pytest.fixture(scope="module")
def attention() -> DeformableAttention:
    torch.manual_seed(0)
    module = DeformableAttention(CHANNELS, num_heads=HEADS, num_levels=LEVELS, num_points=POINTS).double()
    randomise_everything(module)
    # Large offsets, so that many samples fall between cells and across the border of the map.
    module.offsets.weight.data.mul_(8)
    return module


def bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """The value [c] of a map [H, W, c] at (x, y) in [0, 1], cells centred on half numbers, zero outside of it."""
    height, width, channels = level.shape
    column, row = x * width - 0.5, y * height - 0.5
    value = torch.zeros(channels, dtype=level.dtype)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += (1 - abs(row - i)) * (1 - abs(column - j)) * level[i, j]
    return value


def attend_by_hand(module: DeformableAttention, query: Tensor, reference: Tensor, memory: Tensor) -> Tensor:
    """One image: query [Q, C], reference [Q, 4], memory [N, C] -> [Q, C]."""
    values = module.value(memory)
    outputs = []
    for token, (cx, cy, w, h) in zip(query, reference.tolist(), strict=True):
        offsets = module.offsets(token).tolist()
        scores = module.weights(token).tolist()
        heads = []
        for head in range(HEADS):
            own = scores[head * LEVELS * POINTS : (head + 1) * LEVELS * POINTS]
            total = sum(math.exp(score) for score in own)
            attended = torch.zeros(CHANNELS // HEADS, dtype=values.dtype)
            start = 0
            for level, (height, width) in enumerate(SIZES):
                cells = values[start : start + height * width].reshape(height, width, CHANNELS)
                cells = cells[:, :, head * CHANNELS // HEADS : (head + 1) * CHANNELS // HEADS]
                start += height * width
                for point in range(POINTS):
                    index = (head * LEVELS + level) * POINTS + point
                    x = cx + offsets[2 * index] / POINTS * w * 0.5
                    y = cy + offsets[2 * index + 1] / POINTS * h * 0.5
                    weight = math.exp(own[level * POINTS + point]) / total
                    attended = attended + weight * bilinear(cells, x, y)
            heads.append(attended)
        outputs.append(module.output(torch.cat(heads)))
    return torch.stack(outputs)


@torch.no_grad()
def test_attention_equals_a_loop_that_samples_by_hand(attention: DeformableAttention) -> None:
    query = torch.randn(2, 9, CHANNELS, dtype=torch.float64)
    memory = torch.randn(2, sum(h * w for h, w in SIZES), CHANNELS, dtype=torch.float64)
    reference = torch.rand(2, 9, 4, dtype=torch.float64)
    found = attention(query, reference, memory, SIZES)
    for i in range(2):
        assert torch.allclose(found[i], attend_by_hand(attention, query[i], reference[i], memory[i]), atol=1e-9)


@torch.no_grad()
def test_samples_far_outside_of_the_map_are_zero(attention: DeformableAttention) -> None:
    query = torch.randn(1, 3, CHANNELS, dtype=torch.float64)
    memory = torch.randn(1, sum(h * w for h, w in SIZES), CHANNELS, dtype=torch.float64)
    reference = torch.tensor([[50.0, 50.0, 0.1, 0.1]], dtype=torch.float64).expand(1, 3, 4)
    assert torch.allclose(attention(query, reference, memory, SIZES), attention.output.bias.expand(1, 3, -1))


def test_heads_start_out_in_eight_directions_and_points_at_growing_distances() -> None:
    module = DeformableAttention(64, num_heads=8, num_levels=3, num_points=4)
    offsets = module.offsets.bias.detach().reshape(8, 3, 4, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, (x, y) in enumerate(directions):
        for point in range(4):
            expected = torch.tensor([x, y], dtype=torch.float32) * (point + 1)
            assert torch.allclose(offsets[head, :, point], expected.expand(3, 2), atol=1e-5)
    assert not module.offsets.weight.any()


def test_all_samples_start_with_equal_weight() -> None:
    module = DeformableAttention(64, num_heads=8, num_levels=3, num_points=4)
    assert not module.weights.weight.any()
    assert not module.weights.bias.any()

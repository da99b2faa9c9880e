"""FINE: identity at the start, attention by hand, aligned token grids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.models.fine import FINE, FineSettings, pool_tokens


def test_fine_is_the_identity_at_initialisation() -> None:
    low, high = torch.randn(2, 32, 8, 12), torch.randn(2, 32, 4, 6)
    assert torch.equal(FINE(32)(low, high), low)


@pytest.mark.parametrize("ffn_ratio", [0, 2])
def test_fine_equals_attention_by_hand(ffn_ratio: int) -> None:
    torch.manual_seed(0)
    fine = FINE(32, FineSettings(stride_ratio=1, ffn_ratio=ffn_ratio), pool=1).double()
    for parameter in fine.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    low, high = torch.randn(1, 32, 3, 4).double(), torch.randn(1, 32, 3, 4).double()

    def tokens(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        rows = x[0].reshape(32, 12).T
        centred = rows - rows.mean(dim=1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
        return scaled * norm.weight + norm.bias

    def linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
        return x @ layer.weight.T + layer.bias

    query = linear(tokens(low, fine.low_norm), fine.query)
    key, value = (linear(tokens(high, fine.high_norm), layer) for layer in (fine.key, fine.value))
    parts = []
    for head in range(2):
        part = slice(16 * head, 16 * head + 16)
        weights = (query[:, part] @ key[:, part].T / math.sqrt(16)).softmax(dim=1)
        parts.append(weights @ value[:, part])
    modulation = linear(torch.cat(parts, dim=1), fine.output)
    if fine.feed_forward is not None:
        modulation = linear(fine.feed_forward[1](linear(modulation, fine.feed_forward[0])), fine.feed_forward[2])
    expected = low * modulation.T.reshape(1, 32, 3, 4) + low
    assert torch.allclose(fine(low, high), expected, atol=1e-10)


@pytest.mark.parametrize(("pool", "stride"), [(1, 16), (2, 8)])
def test_both_levels_give_400_tokens_at_640(pool: int, stride: int) -> None:
    low = torch.zeros(1, 16, 640 // stride, 640 // stride)
    high = torch.zeros(1, 16, 320 // stride, 320 // stride)
    assert pool_tokens(low, 2 * pool).shape[2:].numel() == 400
    assert pool_tokens(high, pool).shape[2:].numel() == 400


def test_two_modules_of_256_channels_have_the_counted_parameters() -> None:
    assert 2 * sum(p.numel() for p in FINE(256).parameters()) == 1_054_208


def test_partial_windows_at_the_border_average_what_they_cover() -> None:
    x = torch.arange(5.0).reshape(1, 1, 1, 5).expand(1, 1, 5, 5)
    assert pool_tokens(x, 2)[0, 0, 0].tolist() == [0.5, 2.5, 4.0]


def test_odd_sizes_keep_the_shape_of_the_low_level() -> None:
    fine = FINE(32, pool=2)
    torch.nn.init.normal_(fine.feed_forward[2].weight)
    assert fine(torch.randn(1, 32, 7, 9), torch.randn(1, 32, 4, 5)).shape == (1, 32, 7, 9)
    assert fine(torch.randn(1, 32, 6, 10), torch.randn(1, 32, 3, 5)).shape == (1, 32, 6, 10)


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="32 channels cannot have 5 heads"):
        FINE(32, FineSettings(num_heads=5))

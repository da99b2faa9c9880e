"""FINE's five kinds of attention: each against a plain loop over queries and keys, and by its cost."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.models.fine import ATTENTION_KINDS, FINE, FineSettings

CHANNELS, HEADS = 32, 2
PUBLISHED_GFLOPS = {"vanilla": 18.0, "area": 10.0, "window": 8.9, "linear": 7.0, "aats": 1.2}
"""FINE, table 3, dearest first: two modules of 256 channels at 640x640."""

Maps = tuple[FINE, Tensor, Tensor]


def random_maps(chosen: FineSettings, low_size: tuple[int, int], high_size: tuple[int, int]) -> Maps:
    """A float64 FINE with all parameters drawn, and the maps of both levels."""
    torch.manual_seed(0)
    fine = FINE(CHANNELS, chosen).double()
    for parameter in fine.parameters():
        nn.init.normal_(parameter, std=0.3)
    return fine, torch.randn(2, CHANNELS, *low_size).double(), torch.randn(2, CHANNELS, *high_size).double()


def tokens_by_hand(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """[C, H, W] -> [H * W, C], normalised."""
    rows = x.reshape(x.shape[0], -1).T
    centred = rows - rows.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def linear_by_hand(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def residual_by_hand(fine: FINE, low: Tensor, attended: Tensor) -> Tensor:
    """F * M + F for one image, from its attention's output [N_low, C]."""
    m = linear_by_hand(attended, fine.output)
    if fine.feed_forward is not None:
        m = linear_by_hand(F.gelu(linear_by_hand(m, fine.feed_forward[0])), fine.feed_forward[2])
    return low * m.T.reshape(low.shape) + low


def refined_by_hand(fine: FINE, low: Tensor, high: Tensor, keys_of: Callable[[int], list[int]]) -> Tensor:
    """Refines one image, one query and head at a time; `keys_of` lists the high tokens that a query sees."""
    query = linear_by_hand(tokens_by_hand(low, fine.low_norm), fine.query)
    key, value = (linear_by_hand(tokens_by_hand(high, fine.high_norm), layer) for layer in (fine.key, fine.value))
    attended = torch.zeros_like(query)
    width = CHANNELS // HEADS
    for i in range(len(query)):
        seen = keys_of(i)
        for part in (slice(0, width), slice(width, 2 * width)):
            scores = torch.stack([query[i, part] @ key[j, part] / math.sqrt(width) for j in seen]).exp()
            attended[i, part] = sum(w * value[j, part] for w, j in zip(scores / scores.sum(), seen, strict=True))
    return residual_by_hand(fine, low, attended)


@pytest.mark.parametrize("ffn_ratio", [0, 2])
@pytest.mark.parametrize("settings", [{"attention": "vanilla"}, {"stride_ratio": 1}], ids=["vanilla", "aats r=k=1"])
def test_attention_between_all_tokens_equals_a_loop(settings: dict[str, object], ffn_ratio: float) -> None:
    fine, low, high = random_maps(FineSettings(ffn_ratio=ffn_ratio, **settings), (3, 4), (2, 3))
    expected = torch.stack([refined_by_hand(fine, f, h, lambda i: list(range(6))) for f, h in zip(low, high)])
    assert torch.allclose(fine(low, high), expected, atol=1e-10)


@pytest.mark.parametrize("settings", [{"attention": "vanilla"}, {"stride_ratio": 1}], ids=["vanilla", "aats r=k=1"])
def test_attention_between_all_tokens_equals_scaled_dot_product_attention(settings: dict[str, object]) -> None:
    fine, low, high = random_maps(FineSettings(**settings), (8, 8), (4, 4))
    fine = fine.float()
    low, high = low[0].float(), high[0].float()

    def heads(x: Tensor) -> Tensor:
        return x.reshape(1, -1, HEADS, CHANNELS // HEADS).transpose(1, 2)

    low_tokens, high_tokens = tokens_by_hand(low, fine.low_norm), tokens_by_hand(high, fine.high_norm)
    attended = F.scaled_dot_product_attention(
        heads(linear_by_hand(low_tokens, fine.query)),
        heads(linear_by_hand(high_tokens, fine.key)),
        heads(linear_by_hand(high_tokens, fine.value)),
    )
    expected = residual_by_hand(fine, low, attended.transpose(1, 2).reshape(-1, CHANNELS))
    error = (fine(low[None], high[None])[0] - expected).abs().max() / expected.abs().max()
    assert error < 1e-6


@pytest.mark.parametrize(
    ("low_size", "high_size"), [((6, 8), (3, 4)), ((7, 9), (4, 5)), ((1, 1), (1, 1)), ((2, 8), (1, 4))], ids=str
)
def test_window_attention_equals_a_loop(low_size: tuple[int, int], high_size: tuple[int, int]) -> None:
    window, width = 3, low_size[1]
    fine, low, high = random_maps(FineSettings(attention="window", window_size=window), low_size, high_size)

    def keys_of(i: int) -> list[int]:
        # The high tokens under the window's pixels: each as often as it has pixels there.
        top, left = i // width // window * window, i % width // window * window
        pixels = [(y, x) for y in range(top, top + window) for x in range(left, left + window)]
        return [y // 2 * high_size[1] + x // 2 for y, x in pixels if y < low_size[0] and x < width]

    expected = torch.stack([refined_by_hand(fine, f, h, keys_of) for f, h in zip(low, high)])
    assert torch.allclose(fine(low, high), expected, atol=1e-10)


@pytest.mark.parametrize("area", [3, 4])
@pytest.mark.parametrize(
    ("low_size", "high_size"), [((8, 6), (4, 3)), ((5, 7), (3, 4)), ((3, 3), (1, 2)), ((1, 1), (2, 2))], ids=str
)
def test_area_attention_equals_a_loop(low_size: tuple[int, int], high_size: tuple[int, int], area: int) -> None:
    fine, low, high = random_maps(FineSettings(attention="area", area=area), low_size, high_size)
    num_low, num_high = math.prod(low_size), math.prod(high_size)
    areas = min(area, num_low, num_high)

    def area_of(i: int, num_tokens: int) -> int:
        return max(a for a in range(areas) if math.floor(a * num_tokens / areas) <= i)

    def keys_of(i: int) -> list[int]:
        return [j for j in range(num_high) if area_of(j, num_high) == area_of(i, num_low)]

    expected = torch.stack([refined_by_hand(fine, f, h, keys_of) for f, h in zip(low, high)])
    assert torch.allclose(fine(low, high), expected, atol=1e-10)


@pytest.mark.parametrize(("low_size", "high_size"), [((6, 4), (3, 2)), ((5, 3), (3, 2)), ((1, 1), (1, 1))], ids=str)
def test_linear_attention_equals_a_loop(low_size: tuple[int, int], high_size: tuple[int, int]) -> None:
    fine, low, high = random_maps(FineSettings(attention="linear"), low_size, high_size)
    width = CHANNELS // HEADS
    for image, refined in zip(range(2), fine(low, high), strict=True):
        query = linear_by_hand(tokens_by_hand(low[image], fine.low_norm), fine.query)
        high_tokens = tokens_by_hand(high[image], fine.high_norm)
        key, value = (linear_by_hand(high_tokens, layer) for layer in (fine.key, fine.value))
        attended = torch.zeros_like(query)
        for i in range(len(query)):
            for j in range(len(key)):
                for part in (slice(0, width), slice(width, 2 * width)):
                    scaled_query = query[i, part] / query[:, part].abs().sum(dim=0)
                    scaled_key = key[j, part] / key[:, part].abs().sum(dim=0)
                    attended[i, part] += (scaled_query @ scaled_key) * value[j, part]
        assert torch.allclose(refined, residual_by_hand(fine, low[image], attended), atol=1e-10)


def gflops_at_640(chosen: FineSettings) -> float:
    """2 x multiply-adds of both modules of 256 channels at 640x640, counted without computing."""
    total = 0
    for pool, high_side in zip(chosen.pools, (20, 40), strict=True):
        with torch.device("meta"):
            fine = FINE(256, chosen, pool=pool)
            low, high = (torch.empty(1, 256, side, side) for side in (2 * high_side, high_side))
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            fine(low, high)
        total += counter.get_total_flops()
    return total / 1e9


@pytest.mark.parametrize("attention", PUBLISHED_GFLOPS)
def test_every_kind_costs_what_table_3_says(attention: str) -> None:
    assert gflops_at_640(FineSettings(attention=attention)) == pytest.approx(PUBLISHED_GFLOPS[attention], rel=0.1)


def test_the_kinds_rank_by_cost_as_in_table_3() -> None:
    ranked = sorted(ATTENTION_KINDS, key=lambda kind: -gflops_at_640(FineSettings(attention=kind)))
    assert ranked == list(PUBLISHED_GFLOPS)


def test_sampling_without_the_feed_forward_part_costs_what_the_text_implies() -> None:
    assert gflops_at_640(FineSettings(ffn_ratio=0)) == pytest.approx(0.75, abs=0.005)


def test_depthwise_sampling_adds_the_multiply_adds_of_table_6() -> None:
    added = gflops_at_640(FineSettings(downsample="depthwise")) - gflops_at_640(FineSettings())
    assert added / 2 == pytest.approx(2.46e-3, rel=0.002)

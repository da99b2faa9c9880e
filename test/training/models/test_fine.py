"""FINE: identity at the start, aligned token grids, modulation, any size, gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.models.fine import ATTENTION_KINDS, FINE, MODULATION_KINDS, FineSettings
from training.models.token_sampling import DOWNSAMPLE_KINDS, token_sampling

ALL_SETTINGS = st.builds(
    FineSettings,
    stride_ratio=st.integers(1, 4),
    num_heads=st.sampled_from([None, 1, 4]),
    ffn_ratio=st.sampled_from([0, 0.5, 2]),
    downsample=st.sampled_from(DOWNSAMPLE_KINDS),
    modulation=st.sampled_from(MODULATION_KINDS),
    attention=st.sampled_from(ATTENTION_KINDS),
    window_size=st.integers(1, 8),
    area=st.integers(1, 5),
)
SIZES = st.tuples(st.integers(1, 17), st.integers(1, 17))


def randomised(fine: FINE) -> FINE:
    """The same module with every parameter drawn, so that nothing holds merely by its initial value."""
    for parameter in fine.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return fine


def test_fine_is_the_identity_at_initialisation() -> None:
    low, high = torch.randn(2, 32, 8, 12), torch.randn(2, 32, 4, 6)
    assert torch.equal(FINE(32)(low, high), low)


@pytest.mark.parametrize("modulation", ["residual", "direct"])
@pytest.mark.parametrize("ffn_ratio", [0, 2])
@pytest.mark.parametrize("downsample", DOWNSAMPLE_KINDS)
@pytest.mark.parametrize("attention", ATTENTION_KINDS)
def test_every_kind_is_the_identity_at_initialisation(
    attention: str, downsample: str, ffn_ratio: float, modulation: str
) -> None:
    torch.manual_seed(0)
    chosen = FineSettings(attention=attention, downsample=downsample, ffn_ratio=ffn_ratio, modulation=modulation)
    low, high = torch.randn(2, 32, 9, 11), torch.randn(2, 32, 5, 6)
    assert torch.equal(FINE(32, chosen, pool=2)(low, high), low)


def test_without_modulation_the_map_follows_the_high_level_from_the_start() -> None:
    torch.manual_seed(0)
    fine = FINE(32, FineSettings(modulation="none"))
    low, high = torch.randn(1, 32, 8, 8), torch.randn(1, 32, 4, 4)
    assert (fine(low, high) - fine(low, -high)).abs().max() > 1e-3


@pytest.mark.parametrize("modulation", MODULATION_KINDS)
def test_modulation_applies_the_map_as_named(modulation: str) -> None:
    torch.manual_seed(0)
    fine = randomised(FINE(32, FineSettings(modulation=modulation)))
    low, high = torch.randn(1, 32, 6, 8), torch.randn(1, 32, 3, 4)
    m = fine.modulation_map(low, high)
    expected = {"residual": low * m + low, "direct": low * m, "none": m}[modulation]
    assert torch.equal(fine(low, high), expected)


def test_the_map_is_constant_within_a_low_level_window() -> None:
    torch.manual_seed(0)
    fine = randomised(FINE(32, pool=2))
    m = fine.modulation_map(torch.randn(1, 32, 8, 12), torch.randn(1, 32, 4, 6))
    assert torch.equal(m, m[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))


@pytest.mark.parametrize(("fusion", "stride"), [(0, 16), (1, 8)])
@pytest.mark.parametrize("downsample", DOWNSAMPLE_KINDS)
def test_both_levels_give_400_tokens_at_640(downsample: str, fusion: int, stride: int) -> None:
    chosen = FineSettings(downsample=downsample)
    fine = FINE(16, chosen, pool=chosen.pools[fusion])
    low = torch.zeros(1, 16, 640 // stride, 640 // stride)
    high = torch.zeros(1, 16, 320 // stride, 320 // stride)
    assert fine.low_sampling(low).shape[2:].numel() == 400
    assert fine.high_sampling(high).shape[2:].numel() == 400


def test_two_modules_of_256_channels_have_the_counted_parameters() -> None:
    assert 2 * sum(p.numel() for p in FINE(256).parameters()) == 1_054_208


def test_depthwise_sampling_adds_the_parameters_of_table_6() -> None:
    def count(downsample: str) -> int:
        chosen = FineSettings(downsample=downsample)
        return sum(p.numel() for pool in chosen.pools for p in FINE(256, chosen, pool=pool).parameters())

    assert count("depthwise") - count("average") == 6_144


@pytest.mark.parametrize("kind", ["average", "depthwise"])
def test_partial_windows_at_the_border_average_what_they_cover(kind: str) -> None:
    x = torch.arange(5.0).reshape(1, 1, 1, 5).expand(1, 1, 5, 5)
    assert token_sampling(kind, 1, 2)(x)[0, 0, 0].tolist() == [0.5, 2.5, 4.0]


def test_partial_windows_at_the_border_take_the_greatest_of_what_they_cover() -> None:
    x = -1 - torch.arange(5.0).reshape(1, 1, 1, 5).expand(1, 1, 5, 5)
    assert token_sampling("max", 1, 2)(x)[0, 0, 2].tolist() == [-1.0, -3.0, -5.0]


@pytest.mark.parametrize("kernel", [2, 3, 4, 8])
def test_depthwise_sampling_starts_as_average_pooling(kernel: int) -> None:
    x = torch.randn(2, 5, 9, 7)
    average, depthwise = (token_sampling(kind, 5, kernel)(x) for kind in ("average", "depthwise"))
    assert torch.allclose(depthwise, average, atol=1e-6)


def test_depthwise_sampling_weights_the_pixels_of_a_window() -> None:
    sampling = token_sampling("depthwise", 2, 2)
    with torch.no_grad():
        sampling.weight.copy_(torch.arange(8.0).reshape(2, 1, 2, 2))
    x = torch.randn(1, 2, 4, 6)
    expected = (x.unflatten(3, (3, 2)).unflatten(2, (2, 2)) * sampling.weight.reshape(2, 1, 2, 1, 2)).sum((3, 5))
    assert torch.allclose(sampling(x), expected, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(chosen=ALL_SETTINGS, pool=st.integers(1, 3), low_size=SIZES, high_size=SIZES, batch=st.integers(1, 2))
def test_any_settings_run_at_any_size(
    chosen: FineSettings, pool: int, low_size: tuple[int, int], high_size: tuple[int, int], batch: int
) -> None:
    torch.manual_seed(0)
    fine = randomised(FINE(16, chosen, pool=pool))
    low, high = torch.randn(batch, 16, *low_size), torch.randn(batch, 16, *high_size)
    refined = fine(low, high)
    assert refined.shape == low.shape
    assert refined.isfinite().all()
    refined.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fine.parameters())


@settings(max_examples=50, deadline=None)
@given(chosen=ALL_SETTINGS, pool=st.integers(1, 2), low_size=SIZES, high_size=SIZES)
def test_an_image_is_refined_alike_alone_and_in_a_batch(
    chosen: FineSettings, pool: int, low_size: tuple[int, int], high_size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    fine = randomised(FINE(16, chosen, pool=pool)).double()
    low, high = torch.randn(3, 16, *low_size).double(), torch.randn(3, 16, *high_size).double()
    assert torch.allclose(fine(low, high)[1:2], fine(low[1:2], high[1:2]), atol=1e-10)


@pytest.mark.parametrize("downsample", DOWNSAMPLE_KINDS)
@pytest.mark.parametrize("attention", ATTENTION_KINDS)
def test_gradients_reach_every_parameter_that_matters(attention: str, downsample: str) -> None:
    torch.manual_seed(0)
    fine = randomised(FINE(16, FineSettings(attention=attention, downsample=downsample), pool=2)).double()
    low, high = torch.randn(1, 16, 19, 17).double(), torch.randn(1, 16, 10, 9).double()
    fine(low, high).square().sum().backward()
    unreached = {name for name, p in fine.named_parameters() if p.grad.abs().max() < 1e-8}
    # A bias on every key shifts all scores of a query alike, which a softmax does not see.
    assert unreached == (set() if attention == "linear" else {"key.bias"})


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="32 channels cannot have 5 heads; their number must divide"):
        FINE(32, FineSettings(num_heads=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": "sparse"}, "attention is 'sparse'; accepted are aats, vanilla, window, area, linear"),
        ({"modulation": "additive"}, "modulation is 'additive'; accepted are residual, direct, none"),
        ({"downsample": "nearest"}, "downsample is 'nearest'; accepted are average, max, depthwise"),
        ({"stride_ratio": 0}, "stride_ratio has 0; it must be a whole number of at least 1"),
        ({"stride_ratio": 1.5}, "stride_ratio has 1.5; it must be a whole number"),
        ({"pools": (1, 0)}, "pools has 0; it must be a whole number of at least 1"),
        ({"pools": (1, 2, 4)}, r"pools is \(1, 2, 4\); it must have two entries"),
        ({"num_heads": 0}, "num_heads has 0; it must be a whole number of at least 1"),
        ({"window_size": -7}, "window_size has -7"),
        ({"area": 0}, "area has 0"),
        ({"ffn_ratio": -1}, "ffn_ratio is -1; it must be 0"),
        ({"ffn_ratio": float("nan")}, "ffn_ratio is nan"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FineSettings(), **change)


def test_a_feed_forward_part_has_the_width_that_its_ratio_says() -> None:
    def hidden(ratio: float) -> Tensor:
        return FINE(32, FineSettings(ffn_ratio=ratio)).feed_forward[0].weight

    assert hidden(0.5).shape == (16, 32)
    assert hidden(2).shape == (64, 32)

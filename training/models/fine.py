"""FINE: refines a low-level feature map under the guidance of the level above it, before they are fused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.cross_attention import (
    area_attention,
    linear_attention,
    vanilla_attention,
    window_attention,
)
from training.models.token_sampling import DOWNSAMPLE_KINDS, token_sampling

MODULATION_KINDS = ("residual", "direct", "none")
ATTENTION_KINDS = ("aats", "vanilla", "window", "area", "linear")


@dataclass(frozen=True)
class FineSettings:
    """Settings of FINE, the paper's by default; every other value is one of its ablations.

    Attributes:
        stride_ratio: r, by which the low level's kernel exceeds the high level's; for aats only.
        pools: k, the kernel on the high level, at the fusions P5 -> P4 and P4 -> P3; for aats only.
        num_heads: attention heads; C/16 if None.
        ffn_ratio: hidden width of the feed-forward part over C; 0 for none.
        downsample: how aats makes a token of a window: average, max or depthwise (a learnt convolution; Table 6).
        modulation: how M acts on F: residual (F * M + F), direct (F * M) or none (M replaces F); Figure 7.
        attention: aats (all to all, between sampled tokens), or between all tokens: vanilla (all to all), window,
            area or linear (Table 3).
        window_size: side of a window, in tokens of the low level; for window only.
        area: number of strips; for area only.

    Raises:
        ValueError: a value that none of this allows.
    """

    stride_ratio: int = 2
    pools: tuple[int, int] = (1, 2)
    num_heads: int | None = None
    ffn_ratio: float = 2.0
    downsample: str = "average"
    modulation: str = "residual"
    attention: str = "aats"
    window_size: int = 7
    area: int = 4

    def __post_init__(self) -> None:
        if len(self.pools) != 2:
            raise ValueError(f"pools is {self.pools}; it must have two entries, for P5 -> P4 and P4 -> P3")
        counts = [("stride_ratio", self.stride_ratio), ("window_size", self.window_size), ("area", self.area)]
        counts += [("pools", pool) for pool in self.pools]
        counts += [("num_heads", self.num_heads)] if self.num_heads is not None else []
        for name, count in counts:
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} has {count!r}; it must be a whole number of at least 1")
        if not 0 <= self.ffn_ratio < float("inf"):
            raise ValueError(f"ffn_ratio is {self.ffn_ratio}; it must be 0 (no feed-forward part) or positive")
        for name, value, accepted in (
            ("downsample", self.downsample, DOWNSAMPLE_KINDS),
            ("modulation", self.modulation, MODULATION_KINDS),
            ("attention", self.attention, ATTENTION_KINDS),
        ):
            if value not in accepted:
                raise ValueError(f"{name} is {value!r}; accepted are {', '.join(accepted)}")


class FINE(nn.Module):
    """Feature Interaction NEtwork: cross-level attention between aligned tokens gives a modulation map.

    Alignment-Aware Token Sampling pools the high level by k and the low level by r*k, so that a token of
    either covers the same region. Queries come from the low level, keys and values from the high one. The
    attention's output, projected, is up-sampled to M and applied as F_low * M + F_low (FINE, equations 5-9).
    The other kinds of attention work on all tokens of both levels, without sampling; M then has the low level's
    own size.

    Initialisation: with residual modulation the last projection starts at zero, with direct modulation its
    weights start at zero and its bias at one; either way the module starts as the identity. Without modulation
    nothing that the attention gives could be the identity, and zero would blank the level: the last projection
    then starts like any other layer, so that M carries the high level's content from the first step.

    The paper's own parameter and FLOP tables need a further 4C^2 weights on the low tokens beside the four
    projections; `ffn_ratio` = 2 (C -> 2C -> C behind the output projection) gives them, 0 leaves the text's form.

    Args:
        channels: C, of both inputs; a multiple of 16, or of the heads where their number is set.
        settings: see `FineSettings`.
        pool: k, the down-sampling of the high level; for aats only.

    Raises:
        ValueError: a number of heads that does not divide the channels.
    """

    def __init__(self, channels: int, settings: FineSettings = FineSettings(), *, pool: int = 1) -> None:
        super().__init__()
        self.settings = settings
        self.num_heads = settings.num_heads or channels // 16
        if self.num_heads < 1 or channels % self.num_heads:
            raise ValueError(
                f"FINE with {channels} channels cannot have {self.num_heads} heads; their number must divide the "
                "channels, and where it is not set there must be at least 16 channels"
            )
        high_kernel = pool if settings.attention == "aats" else 1
        self.low_kernel = settings.stride_ratio * pool if settings.attention == "aats" else 1
        self.low_sampling = token_sampling(settings.downsample, channels, self.low_kernel)
        self.high_sampling = token_sampling(settings.downsample, channels, high_kernel)
        self.low_norm = nn.LayerNorm(channels)
        self.high_norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.feed_forward: nn.Sequential | None = None
        last = self.output
        if settings.ffn_ratio:
            hidden = max(round(settings.ffn_ratio * channels), 1)
            last = nn.Linear(hidden, channels)
            self.feed_forward = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), last)
        if settings.modulation != "none":
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, 1.0 if settings.modulation == "direct" else 0.0)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Modulates `low` [B, C, r*H, r*W] by `high` [B, C, H, W]; returns the shape of `low`.

        Any two sizes are accepted; the levels are taken to cover the same region.
        """
        modulation = self.modulation_map(low, high)
        if self.settings.modulation == "none":
            return modulation
        return low * modulation + low if self.settings.modulation == "residual" else low * modulation

    def modulation_map(self, low: Tensor, high: Tensor) -> Tensor:
        """M, of the shape of `low` (FINE, equations 4-8)."""
        low_map, high_map = self.low_sampling(low), self.high_sampling(high)
        low_size = (int(low_map.shape[2]), int(low_map.shape[3]))
        if self.settings.attention == "window":
            # A window must cover the same region of both levels. To repeat keys and values instead would give the
            # same for less, but Table 3's cost has them projected from a map of the low level's size.
            high_map = F.interpolate(high_map, size=low_size, mode="nearest")
        low_tokens = self.low_norm(low_map.flatten(2).transpose(1, 2))
        high_tokens = self.high_norm(high_map.flatten(2).transpose(1, 2))
        tokens = self.attend(low_tokens, high_tokens, low_size)
        modulation = tokens.transpose(1, 2).reshape(low_map.shape)
        if self.low_kernel == 1:
            return modulation
        modulation = F.interpolate(modulation, scale_factor=float(self.low_kernel), mode="nearest")
        return modulation[:, :, : low.shape[2], : low.shape[3]]

    def attend(self, low_tokens: Tensor, high_tokens: Tensor, low_size: tuple[int, int]) -> Tensor:
        """Multi-head cross attention of [B, N_low, C] to [B, N_high, C], projected: [B, N_low, C].

        `low_size` is the (height, width) of the map of the low tokens.
        """

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        settings = self.settings
        query = heads(self.query(low_tokens))
        key, value = heads(self.key(high_tokens)), heads(self.value(high_tokens))
        if settings.attention == "window":
            attended = window_attention(query, key, value, low_size, settings.window_size)
        elif settings.attention == "area":
            attended = area_attention(query, key, value, settings.area)
        elif settings.attention == "linear":
            attended = linear_attention(query, key, value)
        else:
            attended = vanilla_attention(query, key, value)
        tokens = self.output(attended.transpose(1, 2).flatten(2))
        return tokens if self.feed_forward is None else self.feed_forward(tokens)


def upsample_to(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Nearest up-sampling by 2, cropped to `size` (height, width) where the lower level is of odd size."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")[:, :, : size[0], : size[1]]

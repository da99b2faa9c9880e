"""FINE: refines a low-level feature map under the guidance of the level above it, before they are fused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class FineSettings:
    """Settings of FINE, the paper's by default; every other value is one of its ablations.

    Attributes:
        stride_ratio: r, by which the low level's kernel exceeds the high level's.
        pools: k, the kernel on the high level, at the fusions P5 -> P4 and P4 -> P3.
        num_heads: attention heads; C/16 if None.
        ffn_ratio: hidden width of the feed-forward part over C; 0 for none.
    """

    stride_ratio: int = 2
    pools: tuple[int, int] = (1, 2)
    num_heads: int | None = None
    ffn_ratio: int = 2


def pool_tokens(x: Tensor, kernel: int) -> Tensor:
    """Average-pools [B, C, H, W] by `kernel`; a partial window at the border averages what it covers."""
    if kernel == 1:
        return x
    return F.avg_pool2d(x, kernel, kernel, ceil_mode=True, count_include_pad=False)


class FINE(nn.Module):
    """Feature Interaction NEtwork: cross-level attention between aligned tokens gives a modulation map.

    Alignment-Aware Token Sampling pools the high level by k and the low level by r*k, so that a token of
    either covers the same region. Queries come from the low level, keys and values from the high one. The
    attention's output, projected, is up-sampled to M and applied as F_low * M + F_low (FINE, equations 5-9).
    The last projection starts at zero: the module starts as the identity.

    The paper's own parameter and FLOP tables need a further 4C^2 weights on the low tokens beside the four
    projections; `ffn_ratio` = 2 (C -> 2C -> C behind the output projection) gives them, 0 leaves the text's form.

    Args:
        channels: C, of both inputs; a multiple of 16.
        settings: see `FineSettings`.
        pool: k, the down-sampling of the high level.
    """

    def __init__(self, channels: int, settings: FineSettings = FineSettings(), *, pool: int = 1) -> None:
        super().__init__()
        ffn_ratio = settings.ffn_ratio
        self.num_heads = settings.num_heads or channels // 16
        if self.num_heads < 1 or channels % self.num_heads:
            raise ValueError(f"FINE with {channels} channels cannot have {self.num_heads} heads")
        self.high_pool = pool
        self.low_pool = settings.stride_ratio * pool
        self.low_norm = nn.LayerNorm(channels)
        self.high_norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.feed_forward: nn.Sequential | None = None
        last = self.output
        if ffn_ratio:
            last = nn.Linear(ffn_ratio * channels, channels)
            self.feed_forward = nn.Sequential(nn.Linear(channels, ffn_ratio * channels), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Modulates `low` [B, C, r*H, r*W] by `high` [B, C, H, W]; returns the shape of `low`."""
        low_map = pool_tokens(low, self.low_pool)
        low_tokens = self.low_norm(low_map.flatten(2).transpose(1, 2))
        high_tokens = self.high_norm(pool_tokens(high, self.high_pool).flatten(2).transpose(1, 2))
        tokens = self.attend(low_tokens, high_tokens)
        modulation = tokens.transpose(1, 2).reshape(low_map.shape)
        modulation = F.interpolate(modulation, scale_factor=float(self.low_pool), mode="nearest")
        modulation = modulation[:, :, : low.shape[2], : low.shape[3]]
        return low * modulation + low

    def attend(self, low_tokens: Tensor, high_tokens: Tensor) -> Tensor:
        """Multi-head cross attention of [B, N_low, C] to [B, N_high, C], projected: [B, N_low, C]."""

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            heads(self.query(low_tokens)), heads(self.key(high_tokens)), heads(self.value(high_tokens))
        )
        tokens = self.output(attended.transpose(1, 2).flatten(2))
        return tokens if self.feed_forward is None else self.feed_forward(tokens)


def upsample_to(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Nearest up-sampling by 2, cropped to `size` (height, width) where the lower level is of odd size."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")[:, :, : size[0], : size[1]]

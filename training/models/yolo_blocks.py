"""The blocks of YOLOv12: bottlenecks, C3k, and area attention, each able to switch its batch norms by path."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.conv import ConvNorm

BATCH_NORM: dict[str, float] = {"eps": 1e-3, "momentum": 0.03}


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: bool = True,
    switchable: bool = False,
) -> ConvNorm:
    """YOLO's convolution: batch norm with eps 1e-3 and momentum 0.03, SiLU unless `activation` is False."""
    return ConvNorm(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        groups=groups,
        activation=nn.SiLU(inplace=True) if activation else None,
        switchable=switchable,
        eps=BATCH_NORM["eps"],
        momentum=BATCH_NORM["momentum"],
    )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with a shortcut; shape kept."""

    def __init__(self, channels: int, *, expansion: float, switchable: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.conv1 = conv(channels, hidden, 3, switchable=switchable)
        self.conv2 = conv(hidden, channels, 3, switchable=switchable)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x + self.conv2(self.conv1(x, path), path)


class C3k(nn.Module):
    """A cross-stage-partial block with two bottlenecks on one of its two branches; shape kept."""

    def __init__(self, channels: int, *, switchable: bool) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = conv(channels, hidden, switchable=switchable)
        self.conv2 = conv(channels, hidden, switchable=switchable)
        self.conv3 = conv(2 * hidden, channels, switchable=switchable)
        self.bottlenecks = nn.ModuleList(
            [Bottleneck(hidden, expansion=1.0, switchable=switchable) for _ in range(2)]
        )

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        y = self.conv1(x, path)
        for bottleneck in self.bottlenecks:
            y = bottleneck(y, path)
        return self.conv3(torch.cat([y, self.conv2(x, path)], dim=1), path)


class AreaAttention(nn.Module):
    """Self-attention inside `area` strips of the row-major token sequence, with a 5x5 positional convolution.

    A token count that `area` does not divide is cut into strips whose lengths differ by one at most, so that
    every image is attended to in as many strips as the network was trained with. (Sides that are multiples of 32
    pixels always give a multiple of the 4 areas at stride 16; YOLOv12 itself refuses any other count.)
    """

    def __init__(self, channels: int, *, num_heads: int, area: int, switchable: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.area = area
        self.query_key = conv(channels, 2 * channels, activation=False, switchable=switchable)
        self.value = conv(channels, channels, activation=False, switchable=switchable)
        self.position = conv(channels, channels, 5, groups=channels, activation=False, switchable=switchable)
        self.projection = conv(channels, channels, activation=False, switchable=switchable)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        batch, channels, height, width = x.shape
        num_tokens = height * width
        value = self.value(x, path)
        query, key = self.query_key(x, path).chunk(2, dim=1)
        tokens = [y.flatten(2).transpose(1, 2) for y in (query, key, value)]
        if num_tokens % self.area == 0:
            # Strips of one length are one batch.
            batched = [y.reshape(batch * self.area, num_tokens // self.area, channels) for y in tokens]
            attended = self.attend(*batched).reshape(batch, num_tokens, channels)
        else:
            bounds = [num_tokens * i // self.area for i in range(self.area + 1)]
            strips = [[y[:, start:end] for y in tokens] for start, end in itertools.pairwise(bounds)]
            attended = torch.cat([self.attend(*strip) for strip in strips], dim=1)
        attended = attended.transpose(1, 2).reshape(x.shape)
        return self.projection(attended + self.position(value, path), path)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Multi-head attention inside strips, each of the three [B, N, C]: [B, N, C]."""

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        return F.scaled_dot_product_attention(heads(query), heads(key), heads(value)).transpose(1, 2).flatten(2)


class AttentionBlock(nn.Module):
    """Area attention and a convolutional two-layer perceptron, each with a shortcut; shape kept."""

    def __init__(self, channels: int, *, num_heads: int, mlp_ratio: float, area: int, switchable: bool) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.attention = AreaAttention(channels, num_heads=num_heads, area=area, switchable=switchable)
        self.mlp1 = conv(channels, hidden, switchable=switchable)
        self.mlp2 = conv(hidden, channels, activation=False, switchable=switchable)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        x = x + self.attention(x, path)
        return x + self.mlp2(self.mlp1(x, path), path)


class AttentionPair(nn.Module):
    """Two attention blocks in a row: what A2C2f counts as one block."""

    def __init__(self, channels: int, *, num_heads: int, mlp_ratio: float, area: int, switchable: bool) -> None:
        super().__init__()
        options: dict[str, Any] = {"num_heads": num_heads, "mlp_ratio": mlp_ratio, "area": area}
        self.first = AttentionBlock(channels, **options, switchable=switchable)
        self.second = AttentionBlock(channels, **options, switchable=switchable)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.second(self.first(x, path), path)


@dataclass(frozen=True)
class YoloSize:
    """One size of the family: multipliers of depth and width, and what differs between small and large ones."""

    depth: float
    width: float
    max_channels: int
    c3k: bool
    mlp_ratio: float = 2.0
    residual_scale: float | None = None

    def channels(self, base: int) -> int:
        """`base` channels at this width, rounded up to a multiple of 8."""
        return int(-(-min(base, self.max_channels) * self.width // 8) * 8)

    def repeats(self, base: int) -> int:
        """`base` blocks at this depth, at least one."""
        return max(round(base * self.depth), 1)


SIZES = {
    "t": YoloSize(1.0, 0.25, 512, c3k=True),
    "n": YoloSize(0.5, 0.25, 1024, c3k=False),
    "s": YoloSize(0.5, 0.5, 1024, c3k=False),
    "m": YoloSize(0.5, 1.0, 512, c3k=True),
    "l": YoloSize(1.0, 1.0, 512, c3k=True, mlp_ratio=1.5, residual_scale=0.01),
    "x": YoloSize(1.0, 1.5, 512, c3k=True, mlp_ratio=1.5, residual_scale=0.01),
}
"""YOLOv12's sizes, and `t`, which is ours: the depth and channel limit of L at a quarter of its width."""

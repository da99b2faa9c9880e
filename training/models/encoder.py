"""RT-DETR's hybrid encoder: attention within P5, then a top-down and a bottom-up path of CSP stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.attention import MultiHeadAttention
from training.models.conv import ConvNorm
from training.models.fine import FINE, FineSettings, upsample_to
from training.models.stage import AnyDepthSettings, SharedPart, SplitBlocks

NUM_HEADS = 8
NUM_BLOCKS = 3
NUM_ESSENTIAL = 1
"""Of the three blocks of a CSP stage one is essential: the papers' exception from ceil(N/2) (AnyDepth, Table 4)."""


def silu_conv(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1) -> ConvNorm:
    """A convolution of the encoder: batch norm and SiLU."""
    return ConvNorm(in_channels, out_channels, kernel_size, stride, activation=nn.SiLU(inplace=True))


def sincos_position(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Position embedding [1, H*W, C] of row-major tokens: sine and cosine of the row, then of the column.

    `channels` is a multiple of 4. Device and type are those of `like`; the angles are computed in double precision.
    """
    quarter = channels // 4
    frequencies = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64, device=like.device) / quarter)
    rows = torch.arange(height, dtype=torch.float64, device=like.device)[:, None] * frequencies
    columns = torch.arange(width, dtype=torch.float64, device=like.device)[:, None] * frequencies
    by_row = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(height, width, 2 * quarter)
    by_column = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(height, width, 2 * quarter)
    return torch.cat([by_row, by_column], dim=2).reshape(1, height * width, channels).to(like.dtype)


class IntraScaleEncoder(nn.Module):
    """P5's projection, attention-based intra-scale feature interaction (AIFI), and the first lateral convolution.

    AIFI is one post-norm transformer layer over all cells of P5, positions added to queries and keys alone.
    What it puts out is read twice: up-sampled by the P4 fusion of the top-down path, and by P5 of the bottom-up path.
    """

    def __init__(self, in_channels: int, channels: int, ffn_channels: int) -> None:
        super().__init__()
        self.project = ConvNorm(in_channels, channels)
        self.attention = MultiHeadAttention(channels, NUM_HEADS)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.lateral = silu_conv(channels, channels)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, p5: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H, W]."""
        x = self.project(p5)
        height, width = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        placed = tokens + sincos_position(height, width, x.shape[1], x)
        tokens = self.norm1(tokens + self.attention(placed, placed, tokens))
        tokens = self.norm2(tokens + self.linear2(F.gelu(self.linear1(tokens))))
        return self.lateral(tokens.transpose(1, 2).reshape(x.shape))


class RepVggBlock(nn.Module):
    """The sum of a 3x3 and a 1x1 convolution, each with its batch norm, and SiLU; one convolution after folding."""

    def __init__(self, channels: int, *, switchable: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3, switchable=switchable)
        self.conv2 = ConvNorm(channels, channels, 1, switchable=switchable)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return F.silu(self.conv1(x, path) + self.conv2(x, path))


class CspRepStage(nn.Module):
    """A CSP stage of RepVgg blocks: two 1x1 branches, blocks on one of them, their sum (CSPRepLayer).

    The essential path runs the first block alone. Shapes: [B, C_in, H, W] -> [B, C_out, H, W].
    """

    def __init__(self, in_channels: int, out_channels: int, *, expansion: float, any_depth: AnyDepthSettings) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = silu_conv(in_channels, hidden)
        self.conv2 = silu_conv(in_channels, hidden)
        self.blocks = SplitBlocks.build(
            NUM_BLOCKS, lambda _, switchable: RepVggBlock(hidden, switchable=switchable), any_depth, NUM_ESSENTIAL
        )
        self.conv3 = silu_conv(hidden, out_channels) if hidden != out_channels else nn.Identity()

    def forward(self, x: Tensor, path: str) -> Tensor:
        """Runs one path, `full` or `essential`."""
        y = self.conv1(x)
        for block in self.blocks.on(path):
            y = block(y, path)
        return self.conv3(y + self.conv2(x))


class TopDownStage(SharedPart):
    """Projection of the lower level, FINE, concatenation with the up-sampled higher level, CSP stage.

    With `lateral` a 1x1 convolution follows, as the next fusion and the bottom-up path both read its output.
    """

    def __init__(
        self,
        low_channels: int,
        channels: int,
        *,
        expansion: float,
        fine: FineSettings | None,
        pool: int,
        lateral: bool,
        any_depth: AnyDepthSettings,
    ) -> None:
        super().__init__()
        self.project = ConvNorm(low_channels, channels)
        self.fine = FINE(channels, fine, pool=pool) if fine is not None else None
        self.shared_part = "project" if fine is None else "fine"
        self.block = CspRepStage(2 * channels, channels, expansion=expansion, any_depth=any_depth)
        self.lateral = silu_conv(channels, channels) if lateral else nn.Identity()

    def align(self, high: Tensor, low: Tensor) -> Tensor:
        """`low`, projected and refined under the guidance of `high` where there is FINE; the same on both paths."""
        low = self.project(low)
        return low if self.fine is None else self.fine(low, high)

    def fuse(self, high: Tensor, low: Tensor, path: str) -> Tensor:
        """Concatenates the up-sampled `high` and the aligned `low` and runs the stage."""
        return self.lateral(self.block(torch.cat([upsample_to(high, low.shape[2:]), low], dim=1), path))


class BottomUpStage(nn.Module):
    """Strided convolution of the lower level, concatenation with the higher one, CSP stage."""

    def __init__(self, channels: int, *, expansion: float, any_depth: AnyDepthSettings) -> None:
        super().__init__()
        self.downsample = silu_conv(channels, channels, 3, 2)
        self.block = CspRepStage(2 * channels, channels, expansion=expansion, any_depth=any_depth)

    def forward(self, low: Tensor, high: Tensor, path: str) -> Tensor:
        """`low` [B, C, 2H, 2W] and `high` [B, C, H, W] -> [B, C, H, W]."""
        return self.block(torch.cat([self.downsample(low), high], dim=1), path)

"""A stage: blocks split into an essential path, which always runs, and a refinement that may be skipped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anydepth_perception.depth.config import ESSENTIAL, FULL
from training.models.conv import ConvNorm


def num_essential_blocks(num_blocks: int) -> int:
    """Blocks on the essential path, k = ceil(N/2) (AnyDepth, section 3.2.1 and Table 4)."""
    return math.ceil(num_blocks / 2)


class Aggregator(nn.Module):
    """The 1x1 convolution that closes a CSP-style stage, once per path (AnyDepth, equation 3).

    The full path reads all `num_full` pieces of `piece_channels`, the essential path the first
    `num_essential`. With `dedicated` the essential path has a weight of its own; otherwise it
    uses the first columns of the full weight, with a batch norm of its own.
    """

    def __init__(
        self,
        piece_channels: int,
        num_full: int,
        num_essential: int,
        out_channels: int,
        *,
        dedicated: bool,
        any_depth: bool,
        activation: nn.Module,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.essential_channels = num_essential * piece_channels
        sliced = any_depth and not dedicated and num_essential < num_full
        self.full = ConvNorm(
            num_full * piece_channels,
            out_channels,
            activation=activation,
            switchable=sliced,
            eps=eps,
            momentum=momentum,
        )
        self.essential: ConvNorm | None = None
        if any_depth and dedicated:
            self.essential = ConvNorm(
                self.essential_channels, out_channels, activation=activation, eps=eps, momentum=momentum
            )

    def forward(self, pieces: Sequence[Tensor], path: str) -> Tensor:
        """Concatenates `pieces`, each [B, d, H, W], and mixes them to [B, C, H, W]."""
        x = torch.cat(list(pieces), dim=1)
        if path == FULL or x.shape[1] == self.full.conv.in_channels:
            return self.full(x, path)
        if self.essential is not None:
            return self.essential(x)
        weight = self.full.conv.weight[:, : self.essential_channels]
        return self.full.activation(self.full.norm_of(path)(F.conv2d(x, weight)))


class AggregatedStage(nn.Module):
    """A CSP-style stage (C3k2, A2C2f): entry convolution, blocks in a row, aggregation of every output.

    The entry's output is cut into `num_entry_pieces` pieces of `piece_channels`; each block reads the
    last piece and appends one. The essential path runs the first k = ceil(N/2) blocks. A stage with
    N = 1 has nothing to skip: its two paths run the same block.

    Shapes: [B, C_in, H, W] -> [B, C_out, H, W]. With `residual_scale` the input is added back,
    the branch scaled per channel (YOLOv12 L and X; C_in must equal C_out).
    """

    def __init__(
        self,
        entry: ConvNorm,
        blocks: Sequence[nn.Module],
        piece_channels: int,
        num_entry_pieces: int,
        out_channels: int,
        *,
        any_depth: bool,
        activation: nn.Module,
        eps: float,
        momentum: float,
        residual_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_blocks = len(blocks)
        self.num_essential = num_essential_blocks(self.num_blocks)
        self.num_entry_pieces = num_entry_pieces
        self.entry = entry
        self.blocks = nn.ModuleList(blocks)
        self.aggregator = Aggregator(
            piece_channels,
            num_entry_pieces + self.num_blocks,
            num_entry_pieces + self.num_essential,
            out_channels,
            dedicated=self.num_blocks > 2,
            any_depth=any_depth,
            activation=activation,
            eps=eps,
            momentum=momentum,
        )
        self.gamma = nn.Parameter(torch.full((out_channels,), residual_scale)) if residual_scale else None

    @property
    def skippable(self) -> bool:
        """Whether the full path has any block that the essential path leaves out."""
        return self.num_essential < self.num_blocks

    def forward(self, x: Tensor, path: str) -> Tensor:
        """Runs one path, `full` or `essential`."""
        pieces = list(self.entry(x).chunk(self.num_entry_pieces, dim=1))
        for block in self.blocks[: self.num_essential if path == ESSENTIAL else self.num_blocks]:
            pieces.append(block(pieces[-1], path))
        y = self.aggregator(pieces, path)
        return y if self.gamma is None else x + self.gamma.reshape(1, -1, 1, 1) * y

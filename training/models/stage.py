"""A stage: blocks split into an essential path, which always runs, and a refinement that may be skipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anydepth_perception.depth.space import ESSENTIAL, FULL
from training.models.conv import ConvNorm


@dataclass(frozen=True)
class AnyDepthSettings:
    """What of the any-depth design a network has; the paper's design by default, less for its ablation (Table 3).

    Attributes:
        enabled: essential paths; False is the plain baseline, which has neither of the others.
        switchable_norms: batch norms of their own for the essential paths (AnyDepth, section 3.2.3).
        dedicated_aggregators: aggregators of their own for the essential paths of CSP-style stages of more than two
            blocks (section 3.2.2); without, the essential path uses the first columns of the full aggregator.
    """

    enabled: bool = True
    switchable_norms: bool = True
    dedicated_aggregators: bool = True

    def norms_switch(self, *, both_paths: bool) -> bool:
        """Whether a layer has a batch norm per path; `both_paths` says whether it runs on both, and they differ."""
        return self.enabled and self.switchable_norms and both_paths


ANY_DEPTH = AnyDepthSettings()
STATIC = AnyDepthSettings(enabled=False)
"""The plain baseline."""


def num_essential_blocks(num_blocks: int) -> int:
    """Blocks on the essential path, k = ceil(N/2) (AnyDepth, section 3.2.1 and Table 4)."""
    return math.ceil(num_blocks / 2)


class SplitBlocks(nn.ModuleList):
    """The N blocks of a stage: the first k are essential, the others refine and may be skipped.

    This is the only place that splits: a network's stages can skip where their blocks can.

    Args:
        blocks: in execution order.
        num_essential: k; ceil(N/2) where it is not given.
    """

    def __init__(self, blocks: Iterable[nn.Module] = (), num_essential: int | None = None) -> None:
        super().__init__(blocks)
        self.num_essential = num_essential_blocks(len(self)) if num_essential is None else num_essential

    @classmethod
    def build(
        cls,
        num_blocks: int,
        block: Callable[[int, bool], nn.Module],
        any_depth: AnyDepthSettings,
        num_essential: int | None = None,
    ) -> SplitBlocks:
        """Makes the blocks; those that run on both of two different paths have switchable batch norms, if any have.

        Args:
            num_blocks: N, at least 1.
            block: makes block i, from 0, with or without switchable batch norms.
            any_depth: of the network.
            num_essential: k; ceil(N/2) where it is not given.
        """
        k = num_essential_blocks(num_blocks) if num_essential is None else num_essential
        blocks = (block(i, any_depth.norms_switch(both_paths=i < k < num_blocks)) for i in range(num_blocks))
        return cls(blocks, k)

    @property
    def skippable(self) -> bool:
        """Whether the full path has any block that the essential path leaves out."""
        return self.num_essential < len(self)

    @property
    def refinement(self) -> Sequence[nn.Module]:
        """The blocks that only the full path runs."""
        return list(self)[self.num_essential :]

    def on(self, path: str) -> Sequence[nn.Module]:
        """The blocks that run on `path`, in order."""
        return list(self)[: self.num_essential] if path == ESSENTIAL else list(self)


def split_of(stage: nn.Module) -> SplitBlocks:
    """The blocks of a stage, wherever in it they are; a stage has exactly one such row.

    Raises:
        ValueError: it has none, or several.
    """
    splits = [module for module in stage.modules() if isinstance(module, SplitBlocks)]
    if len(splits) != 1:
        raise ValueError(f"a {type(stage).__name__} has {len(splits)} rows of split blocks; a stage has one")
    return splits[0]


class SharedPart(nn.Module):
    """A stage that starts with a part which is the same on both paths, and so is an entry of its own.

    Its `forward` is `align`, the shared part, and then `fuse`, which differs by path.

    Attributes:
        shared_part: what the part is called, as `fine`; None where there is nothing in it.
    """

    shared_part: str | None

    def forward(self, high: Tensor, low: Tensor, path: str) -> Tensor:
        """`high` [B, C_high, H, W] and `low` [B, C_low, 2H, 2W] -> [B, C_out, 2H, 2W]."""
        return self.fuse(high, self.align(high, low), path)

    def align(self, high: Tensor, low: Tensor) -> Tensor:
        """`low`, made ready for the fusion with `high`; the same on both paths."""
        raise NotImplementedError

    def fuse(self, high: Tensor, low: Tensor, path: str) -> Tensor:
        """The stage behind the alignment, on one path."""
        raise NotImplementedError


def shared_part(stage: nn.Module) -> str | None:
    """What the part of a stage is called that both paths share; None where there is none."""
    return stage.shared_part if isinstance(stage, SharedPart) else None


class Aggregator(nn.Module):
    """The 1x1 convolution that closes a CSP-style stage, once per path (AnyDepth, equation 3).

    The full path reads all `num_full` pieces of `piece_channels`, the essential path the first
    `num_essential`. With `dedicated` (and where the settings have any) the essential path has a
    weight of its own; otherwise it uses the first columns of the full weight, with a batch norm of
    its own.
    """

    def __init__(
        self,
        piece_channels: int,
        num_full: int,
        num_essential: int,
        out_channels: int,
        *,
        dedicated: bool,
        any_depth: AnyDepthSettings,
        activation: nn.Module,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.essential_channels = num_essential * piece_channels
        dedicated = dedicated and any_depth.enabled and any_depth.dedicated_aggregators
        sliced = not dedicated and num_essential < num_full
        self.full = ConvNorm(
            num_full * piece_channels,
            out_channels,
            activation=activation,
            switchable=any_depth.norms_switch(both_paths=sliced),
            eps=eps,
            momentum=momentum,
        )
        self.essential: ConvNorm | None = None
        if dedicated:
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
        blocks: SplitBlocks,
        piece_channels: int,
        num_entry_pieces: int,
        out_channels: int,
        *,
        any_depth: AnyDepthSettings,
        activation: nn.Module,
        eps: float,
        momentum: float,
        residual_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_entry_pieces = num_entry_pieces
        self.entry = entry
        self.blocks = blocks
        self.aggregator = Aggregator(
            piece_channels,
            num_entry_pieces + len(blocks),
            num_entry_pieces + blocks.num_essential,
            out_channels,
            dedicated=len(blocks) > 2,
            any_depth=any_depth,
            activation=activation,
            eps=eps,
            momentum=momentum,
        )
        self.gamma = nn.Parameter(torch.full((out_channels,), residual_scale)) if residual_scale else None

    def forward(self, x: Tensor, path: str) -> Tensor:
        """Runs one path, `full` or `essential`."""
        pieces = list(self.entry(x).chunk(self.num_entry_pieces, dim=1))
        for block in self.blocks.on(path):
            pieces.append(block(pieces[-1], path))
        y = self.aggregator(pieces, path)
        return y if self.gamma is None else x + self.gamma.reshape(1, -1, 1, 1) * y

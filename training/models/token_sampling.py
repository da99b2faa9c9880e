"""Alignment-aware token sampling: the operators that reduce a feature map to one token per window."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DOWNSAMPLE_KINDS = ("average", "max", "depthwise")


class DepthwisePool(nn.Module):
    """Learnable pooling: a depth-wise convolution without bias whose stride is its kernel.

    It starts as average pooling, at the border too: a window of which the map covers only a part is completed
    with zeros and its sum scaled up by the inverse of that part.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.full((channels, 1, kernel, kernel), 1 / kernel**2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, ceil(H/k), ceil(W/k)]."""
        # As Python numbers, the sizes are constants of an exported graph.
        kernel, height, width = self.kernel, int(x.shape[2]), int(x.shape[3])
        missing_rows, missing_columns = -height % kernel, -width % kernel
        pooled = F.conv2d(
            F.pad(x, (0, missing_columns, 0, missing_rows)), self.weight, stride=kernel, groups=self.weight.shape[0]
        )
        if missing_rows:
            pooled = pooled / _covered(height, kernel, pooled)[:, None]
        if missing_columns:
            pooled = pooled / _covered(width, kernel, pooled)
        return pooled


def _covered(length: int, kernel: int, like: Tensor) -> Tensor:
    """The part, in (0, 1], of every window of `kernel` that lies within `length`."""
    return like.new_tensor([min(kernel, length - start) / kernel for start in range(0, length, kernel)])


def token_sampling(kind: str, channels: int, kernel: int) -> nn.Module:
    """Down(., kernel) of FINE, equation 4: [B, C, H, W] -> [B, C, ceil(H/kernel), ceil(W/kernel)].

    Windows don't overlap. A window that the map's border cuts counts with what it covers of the map. A kernel of
    1 leaves the map alone, whatever the kind: only so does the depth-wise one have the paper's 6.14 K weights.

    Args:
        kind: one of `DOWNSAMPLE_KINDS`.
        channels: C; only the depth-wise convolution needs to know.
        kernel: side of a window, 1 or more.
    """
    if kernel == 1:
        return nn.Identity()
    if kind == "depthwise":
        return DepthwisePool(channels, kernel)
    if kind == "max":
        return nn.MaxPool2d(kernel, ceil_mode=True)
    return nn.AvgPool2d(kernel, ceil_mode=True, count_include_pad=False)

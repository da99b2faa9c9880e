"""Switchable batch normalisation: one set of statistics and affine parameters per path."""

from __future__ import annotations

from torch import Tensor, nn

from anydepth_perception.depth.config import ESSENTIAL


class SwitchableBatchNorm2d(nn.Module):
    """Two batch norms over the same channels; the path of the stage chooses one (AnyDepth, section 3.2.3).

    Shapes: [B, C, H, W] in and out.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.full = nn.BatchNorm2d(num_features, eps=eps, momentum=momentum)
        self.essential = nn.BatchNorm2d(num_features, eps=eps, momentum=momentum)

    def select(self, path: str) -> nn.BatchNorm2d:
        """The batch norm of one path."""
        return self.essential if path == ESSENTIAL else self.full

    def forward(self, x: Tensor, path: str) -> Tensor:
        """Normalises `x` with the statistics of `path`."""
        return self.select(path)(x)

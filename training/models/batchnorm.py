"""Batch normalisation: switchable (statistics and affine parameters per path) and frozen."""

from __future__ import annotations

from torch import Tensor, nn

from anydepth_perception.depth.space import ESSENTIAL


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that training does not touch: running statistics always, affine parameters without gradient."""

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stays in evaluation mode, whatever `mode` is."""
        return super().train(False)


class SwitchableBatchNorm2d(nn.Module):
    """Two batch norms over the same channels; the path of the stage chooses one (AnyDepth, section 3.2.3).

    With `frozen` the norm of the full path is a `FrozenBatchNorm2d`; that of the essential path is trained all the
    same, since no pretrained network brings its statistics.

    Shapes: [B, C, H, W] in and out.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1, frozen: bool = False) -> None:
        super().__init__()
        full = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
        self.full: nn.BatchNorm2d = full(num_features, eps=eps, momentum=momentum)
        self.essential = nn.BatchNorm2d(num_features, eps=eps, momentum=momentum)

    def select(self, path: str) -> nn.BatchNorm2d:
        """The batch norm of one path."""
        return self.essential if path == ESSENTIAL else self.full

    def forward(self, x: Tensor, path: str) -> Tensor:
        """Normalises `x` with the statistics of `path`."""
        return self.select(path)(x)


def batch_norm(
    num_features: int, *, switchable: bool, frozen: bool, eps: float, momentum: float
) -> nn.BatchNorm2d | SwitchableBatchNorm2d:
    """A plain, frozen or switchable batch norm."""
    if switchable:
        return SwitchableBatchNorm2d(num_features, eps=eps, momentum=momentum, frozen=frozen)
    return (FrozenBatchNorm2d if frozen else nn.BatchNorm2d)(num_features, eps=eps, momentum=momentum)

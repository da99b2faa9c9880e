"""Convolution, batch norm and activation: the unit both detector families are made of."""

from __future__ import annotations

from torch import Tensor, nn

from anydepth_perception.depth.space import FULL
from training.models.batchnorm import SwitchableBatchNorm2d, batch_norm


class ConvNorm(nn.Module):
    """Bias-free convolution, batch norm and an optional activation.

    Padding keeps the size at stride 1. With `switchable`, the norm is a `SwitchableBatchNorm2d`
    and the path given to `forward` chooses its half; otherwise the path is ignored. With `frozen`,
    training leaves the norm (of the full path) alone.
    Shapes: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)] for odd kernels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: nn.Module | None = None,
        switchable: bool = False,
        frozen: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, groups=groups, bias=False
        )
        self.norm = batch_norm(out_channels, switchable=switchable, frozen=frozen, eps=eps, momentum=momentum)
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor, path: str = FULL) -> Tensor:
        """Convolves, normalises by the statistics of `path`, activates."""
        x = self.conv(x)
        x = self.norm(x, path) if isinstance(self.norm, SwitchableBatchNorm2d) else self.norm(x)
        return self.activation(x)

    def norm_of(self, path: str) -> nn.BatchNorm2d:
        """The batch norm that `path` uses."""
        return self.norm.select(path) if isinstance(self.norm, SwitchableBatchNorm2d) else self.norm

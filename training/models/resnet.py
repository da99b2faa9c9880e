"""RT-DETR's backbone, ResNet variant d, with an essential and a full path in each of its four stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.conv import ConvNorm
from training.models.stage import AnyDepthSettings, SplitBlocks

STEM_CHANNELS = 64
BASE_CHANNELS = (64, 128, 256, 512)


@dataclass(frozen=True)
class ResNetSize:
    """Blocks per stage (P2 to P5), their type, and whether the published recipe freezes stem and batch norms."""

    num_blocks: tuple[int, int, int, int]
    bottleneck: bool
    frozen: bool

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of P2 to P5."""
        return tuple(channels * (4 if self.bottleneck else 1) for channels in BASE_CHANNELS)


def relu_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, frozen: bool) -> ConvNorm:
    """A convolution of the stem: batch norm and ReLU."""
    return ConvNorm(in_channels, out_channels, kernel_size, stride, activation=nn.ReLU(inplace=True), frozen=frozen)


class Stem(nn.Module):
    """Three 3x3 convolutions (the first strided) and a strided max-pool: [B, 3, H, W] -> [B, 64, H/4, W/4]."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.conv1 = relu_conv(3, STEM_CHANNELS // 2, 3, 2, frozen=frozen)
        self.conv2 = relu_conv(STEM_CHANNELS // 2, STEM_CHANNELS // 2, 3, frozen=frozen)
        self.conv3 = relu_conv(STEM_CHANNELS // 2, STEM_CHANNELS, 3, frozen=frozen)
        if frozen:
            self.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, 64, ceil(H/4), ceil(W/4)]."""
        return F.max_pool2d(self.conv3(self.conv2(self.conv1(image))), 3, 2, 1)


class Shortcut(nn.Module):
    """The projection beside a stage's first block; average pooling where the block strides (variant d)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, switchable: bool, frozen: bool) -> None:
        super().__init__()
        self.stride = stride
        self.project = ConvNorm(in_channels, out_channels, switchable=switchable, frozen=frozen)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H/stride), ceil(W/stride)]."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, self.stride, ceil_mode=True)
        return self.project(x, path)


class ResidualBlock(nn.Module):
    """A basic block (two 3x3 convolutions) or a bottleneck (1x1, 3x3, 1x1 to four times the channels).

    The stride sits in the first 3x3 convolution. Only the first block of a stage has a projection on its shortcut.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        bottleneck: bool,
        project: bool,
        switchable: bool,
        frozen: bool,
    ) -> None:
        super().__init__()
        out_channels = channels * (4 if bottleneck else 1)

        def conv(
            in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, last: bool = False
        ) -> ConvNorm:
            activation = None if last else relu
            return ConvNorm(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                activation=activation,
                switchable=switchable,
                frozen=frozen,
            )

        relu = nn.ReLU(inplace=True)
        if bottleneck:
            self.conv1 = conv(in_channels, channels, 1)
            self.conv2 = conv(channels, channels, 3, stride)
            self.conv3: ConvNorm | None = conv(channels, out_channels, 1, last=True)
        else:
            self.conv1 = conv(in_channels, channels, 3, stride)
            self.conv2 = conv(channels, out_channels, 3, last=True)
            self.conv3 = None
        self.shortcut: Shortcut | None = None
        if project:
            self.shortcut = Shortcut(in_channels, out_channels, stride, switchable=switchable, frozen=frozen)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H/stride), ceil(W/stride)]."""
        y = self.conv2(self.conv1(x, path), path)
        if self.conv3 is not None:
            y = self.conv3(y, path)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x, path)))


class ResidualStage(nn.Module):
    """Blocks in a row, the first k = ceil(N/2) essential (AnyDepth, section 3.2.1).

    Essential blocks have switchable batch norms, shortcut included; the full path adds the refinement blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_blocks: int,
        *,
        stride: int,
        bottleneck: bool,
        any_depth: AnyDepthSettings,
        frozen: bool,
    ) -> None:
        super().__init__()
        out_channels = channels * (4 if bottleneck else 1)

        def block(index: int, switchable: bool) -> ResidualBlock:
            return ResidualBlock(
                in_channels if index == 0 else out_channels,
                channels,
                stride=stride if index == 0 else 1,
                bottleneck=bottleneck,
                project=index == 0,
                switchable=switchable,
                frozen=frozen,
            )

        self.blocks = SplitBlocks.build(num_blocks, block, any_depth)

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H/stride), ceil(W/stride)] on either path."""
        for block in self.blocks.on(path):
            x = block(x, path)
        return x


def residual_stages(size: ResNetSize, *, any_depth: AnyDepthSettings) -> Sequence[ResidualStage]:
    """The stages P2 to P5; P2 keeps the stem's stride."""
    inputs = (STEM_CHANNELS, *size.channels[:-1])
    return [
        ResidualStage(
            in_channels,
            channels,
            num_blocks,
            stride=1 if index == 0 else 2,
            bottleneck=size.bottleneck,
            any_depth=any_depth,
            frozen=size.frozen,
        )
        for index, (in_channels, channels, num_blocks) in enumerate(
            zip(inputs, BASE_CHANNELS, size.num_blocks, strict=True)
        )
    ]

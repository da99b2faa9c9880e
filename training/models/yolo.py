"""AnyDepth-YOLO: YOLOv12 with an essential and a full path in each of its eight stages, and FINE in its neck."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anydepth_perception.depth.space import DepthConfig
from training.models.detector import AnyDepthDetector
from training.models.fine import FINE, FineSettings, upsample_to
from training.models.stage import ANY_DEPTH, AggregatedStage, AnyDepthSettings, SharedPart, SplitBlocks
from training.models.targets import Targets
from training.models.yolo_blocks import (
    BATCH_NORM,
    SIZES,
    AttentionPair,
    Bottleneck,
    C3k,
    YoloSize,
    conv,
)
from training.models.yolo_head import YoloHead


def c3k2(
    in_channels: int, out_channels: int, num_blocks: int, *, expansion: float, c3k: bool, any_depth: AnyDepthSettings
) -> AggregatedStage:
    """The C3k2 stage: the entry's output in two pieces, blocks of C3k or of plain bottlenecks."""
    channels = int(out_channels * expansion)

    def block(index: int, switchable: bool) -> nn.Module:
        if c3k:
            return C3k(channels, switchable=switchable)
        return Bottleneck(channels, expansion=0.5, switchable=switchable)

    blocks = SplitBlocks.build(num_blocks, block, any_depth)
    return AggregatedStage(
        conv(in_channels, 2 * channels),
        blocks,
        channels,
        2,
        out_channels,
        any_depth=any_depth,
        activation=nn.SiLU(inplace=True),
        **BATCH_NORM,
    )


def a2c2f(
    in_channels: int,
    out_channels: int,
    num_blocks: int,
    *,
    size: YoloSize,
    area: int | None,
    any_depth: AnyDepthSettings,
) -> AggregatedStage:
    """The A2C2f stage: blocks of two area-attention layers, or of C3k where `area` is None."""
    channels = out_channels // 2

    def block(index: int, switchable: bool) -> nn.Module:
        if area is None:
            return C3k(channels, switchable=switchable)
        return AttentionPair(
            channels, num_heads=channels // 32, mlp_ratio=size.mlp_ratio, area=area, switchable=switchable
        )

    blocks = SplitBlocks.build(num_blocks, block, any_depth)
    return AggregatedStage(
        conv(in_channels, channels),
        blocks,
        channels,
        1,
        out_channels,
        any_depth=any_depth,
        activation=nn.SiLU(inplace=True),
        residual_scale=size.residual_scale if area is not None else None,
        **BATCH_NORM,
    )


class Stem(nn.Module):
    """Two strided convolutions: image [B, 3, H, W] in [0, 1] -> [B, C, H/4, W/4]."""

    def __init__(self, size: YoloSize) -> None:
        super().__init__()
        self.conv1 = conv(3, size.channels(64), 3, 2)
        self.conv2 = conv(size.channels(64), size.channels(128), 3, 2, groups=2)

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, H/4, W/4]."""
        return self.conv2(self.conv1(image))


class BackboneStage(nn.Module):
    """An optional strided convolution and an aggregated stage."""

    def __init__(self, downsample: nn.Module, stage: AggregatedStage) -> None:
        super().__init__()
        self.downsample = downsample
        self.stage = stage

    def forward(self, x: Tensor, path: str) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, H/2, W/2] (same size where there is no strided convolution)."""
        return self.stage(self.downsample(x), path)


class TopDownStage(SharedPart):
    """FINE on the lower level, concatenation with the up-sampled higher level, aggregated stage."""

    def __init__(
        self, high_channels: int, low_channels: int, stage: AggregatedStage, fine: FineSettings | None, *, pool: int
    ) -> None:
        super().__init__()
        self.fine: FINE | None = None
        self.shared_part = None if fine is None else "fine"
        if fine is not None:
            self.high_projection = nn.Conv2d(high_channels, low_channels, 1)
            self.fine = FINE(low_channels, fine, pool=pool)
        self.stage = stage

    def align(self, high: Tensor, low: Tensor) -> Tensor:
        """`low` refined under the guidance of `high` (by FINE, where there is one); the same on both paths."""
        return low if self.fine is None else self.fine(low, self.high_projection(high))

    def fuse(self, high: Tensor, low: Tensor, path: str) -> Tensor:
        """Concatenates the up-sampled `high` and the aligned `low` and runs the stage."""
        return self.stage(torch.cat([upsample_to(high, low.shape[2:]), low], dim=1), path)


class BottomUpStage(nn.Module):
    """Strided convolution of the lower level, concatenation with the higher one, aggregated stage."""

    def __init__(self, downsample: nn.Module, stage: AggregatedStage) -> None:
        super().__init__()
        self.downsample = downsample
        self.stage = stage

    def forward(self, low: Tensor, high: Tensor, path: str) -> Tensor:
        """`low` [B, C_low, 2H, 2W] and `high` [B, C_high, H, W] -> [B, C_out, H, W]."""
        return self.stage(torch.cat([self.downsample(low), high], dim=1), path)


MAP_INPUTS = {
    "stem": ("images",),
    "p2": ("stem",),
    "p3": ("p2",),
    "p4": ("p3",),
    "p5": ("p4",),
    "fpn_p4": ("p5", "p4"),
    "fpn_p3": ("fpn_p4", "p3"),
    "pan_p4": ("fpn_p3", "fpn_p4"),
    "pan_p5": ("pan_p4", "p5"),
}
"""Which feature maps each entry reads, in the order of its arguments."""

BACKBONE = ("p2", "p3", "p4", "p5")

HEAD_INPUTS = ("fpn_p3", "pan_p4", "pan_p5")


class AnyDepthYolo(AnyDepthDetector):
    """The detector: stem, eight stages, head.

    Args:
        size: a key of `SIZES`: t, n, s, m, l or x.
        num_classes: classes of the head.
        fine: settings of FINE at the two top-down fusions; None leaves it out.
        any_depth: which parts of the any-depth design it has; `STATIC` is the plain baseline.
    """

    map_inputs = MAP_INPUTS
    backbone = BACKBONE

    def __init__(
        self,
        size: str,
        num_classes: int,
        *,
        fine: FineSettings | None = FineSettings(),
        any_depth: AnyDepthSettings = ANY_DEPTH,
    ) -> None:
        super().__init__(f"yolo-{size}", num_classes, any_depth=any_depth)
        s = SIZES[size]
        c128, c256, c512, c1024 = (s.channels(base) for base in (128, 256, 512, 1024))
        two, four = s.repeats(2), s.repeats(4)
        self.stem = Stem(s)
        self.stages = nn.ModuleDict(
            {
                "p2": BackboneStage(
                    nn.Identity(), c3k2(c128, c256, two, expansion=0.25, c3k=s.c3k, any_depth=any_depth)
                ),
                "p3": BackboneStage(
                    conv(c256, c256, 3, 2, groups=4),
                    c3k2(c256, c512, two, expansion=0.25, c3k=s.c3k, any_depth=any_depth),
                ),
                "p4": BackboneStage(
                    conv(c512, c512, 3, 2), a2c2f(c512, c512, four, size=s, area=4, any_depth=any_depth)
                ),
                "p5": BackboneStage(
                    conv(c512, c1024, 3, 2), a2c2f(c1024, c1024, four, size=s, area=1, any_depth=any_depth)
                ),
                "fpn_p4": TopDownStage(
                    c1024,
                    c512,
                    a2c2f(c1024 + c512, c512, two, size=s, area=None, any_depth=any_depth),
                    fine,
                    pool=fine.pools[0] if fine else 1,
                ),
                "fpn_p3": TopDownStage(
                    c512,
                    c512,
                    a2c2f(c512 + c512, c256, two, size=s, area=None, any_depth=any_depth),
                    fine,
                    pool=fine.pools[1] if fine else 1,
                ),
                "pan_p4": BottomUpStage(
                    conv(c256, c256, 3, 2), a2c2f(c256 + c512, c512, two, size=s, area=None, any_depth=any_depth)
                ),
                "pan_p5": BottomUpStage(
                    conv(c512, c512, 3, 2),
                    c3k2(c512 + c1024, c1024, two, expansion=0.5, c3k=True, any_depth=any_depth),
                ),
            }
        )
        self.head = YoloHead((c256, c512, c1024), num_classes)
        self.set_space(("head",))

    def forward(
        self, images: Tensor, config: DepthConfig | None = None, targets: Targets | None = None
    ) -> dict[str, Any]:
        """Detects in images [B, 3, H, W], RGB in [0, 1], sides of 32 pixels or more; returns what `YoloHead` does.

        While training also `features`, every stage's output by name. `config` is the super-net if not given;
        `targets` are not looked at.

        Raises:
            DepthConfigError: a configuration that this detector does not have.
            ValueError: an image smaller than one cell of the coarsest level.
        """
        config = config or self.space.full
        self.check_images(images)
        self.check_config(config)
        maps = self.features(images, config)
        outputs = self.head([maps[name] for name in HEAD_INPUTS])
        if self.training:
            outputs["features"] = self.stage_features(maps)
        return outputs

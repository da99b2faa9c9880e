"""AnyDepth-DETR: RT-DETR with an essential and a full path in each of its eight stages, and FINE in its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from anydepth_perception.depth.space import EXITS, DepthConfig
from training.models.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from training.models.decoder import Decoder
from training.models.denoising import DenoisingQueries, denoising_queries
from training.models.detector import AnyDepthDetector
from training.models.encoder import BottomUpStage, IntraScaleEncoder, TopDownStage
from training.models.fine import FineSettings
from training.models.resnet import ResNetSize, Stem, residual_stages
from training.models.stage import ANY_DEPTH, AnyDepthSettings
from training.models.targets import Targets


@dataclass(frozen=True)
class DetrSize:
    """One size of the family: backbone, widths of the encoder, decoder layers."""

    backbone: ResNetSize
    hidden_channels: int
    ffn_channels: int
    expansion: float
    num_layers: int


SIZES = {
    "r18": DetrSize(ResNetSize((2, 2, 2, 2), bottleneck=False, frozen=False), 256, 1024, 0.5, 3),
    "r34": DetrSize(ResNetSize((3, 4, 6, 3), bottleneck=False, frozen=False), 256, 1024, 0.5, 4),
    "r50": DetrSize(ResNetSize((3, 4, 6, 3), bottleneck=True, frozen=True), 256, 1024, 1.0, 6),
    "r101": DetrSize(ResNetSize((3, 4, 23, 3), bottleneck=True, frozen=True), 384, 2048, 1.0, 6),
}
"""RT-DETR's sizes. R50 and R101 are trained with the stem and the batch norms of the backbone frozen."""

MAP_INPUTS = {
    "stem": ("images",),
    "p2": ("stem",),
    "p3": ("p2",),
    "p4": ("p3",),
    "p5": ("p4",),
    "aifi": ("p5",),
    "fpn_p4": ("aifi", "p4"),
    "fpn_p3": ("fpn_p4", "p3"),
    "pan_p4": ("fpn_p3", "fpn_p4"),
    "pan_p5": ("pan_p4", "aifi"),
}
"""Which feature maps each entry reads, in the order of its arguments."""

BACKBONE = ("p2", "p3", "p4", "p5")

HEAD_INPUTS = ("fpn_p3", "pan_p4", "pan_p5")


class AnyDepthDetr(AnyDepthDetector):
    """The detector: stem, backbone stages, AIFI, encoder stages, decoder with an exit at every layer.

    Args:
        size: a key of `SIZES`: r18, r34, r50 or r101.
        num_classes: classes of the heads.
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
        s = SIZES[size]
        super().__init__(f"detr-{size}", num_classes, any_depth=any_depth)
        _, p3, p4, p5 = s.backbone.channels
        hidden = s.hidden_channels
        pools = fine.pools if fine is not None else (1, 1)
        self.stem = Stem(frozen=s.backbone.frozen)
        self.aifi = IntraScaleEncoder(p5, hidden, s.ffn_channels)
        stages = [
            *residual_stages(s.backbone, any_depth=any_depth),
            TopDownStage(
                p4, hidden, fine=fine, pool=pools[0], lateral=True, expansion=s.expansion, any_depth=any_depth
            ),
            TopDownStage(
                p3, hidden, fine=fine, pool=pools[1], lateral=False, expansion=s.expansion, any_depth=any_depth
            ),
            BottomUpStage(hidden, expansion=s.expansion, any_depth=any_depth),
            BottomUpStage(hidden, expansion=s.expansion, any_depth=any_depth),
        ]
        names = [name for name in MAP_INPUTS if name not in ("stem", "aifi")]
        self.stages = nn.ModuleDict(dict(zip(names, stages, strict=True)))
        self.decoder = Decoder([hidden] * 3, num_classes, s.num_layers)
        self.set_space(("selection", EXITS), s.num_layers)

    def forward(
        self, images: Tensor, config: DepthConfig | None = None, targets: Targets | None = None
    ) -> dict[str, Any]:
        """Detects in images [B, 3, H, W], RGB in [0, 1], sides of 32 pixels or more.

        `config` is the super-net if not given. `targets` add denoising queries while training.

        Returns:
            `logits` [B, Q, C], `boxes_cxcywh` [B, Q, 4] in [0, 1] and `boxes` [B, Q, 4], xyxy in network pixels, of
            the configuration's exit; Q is 300, or the number of cells of a smaller image. While training also what
            `Decoder` puts out then, `denoising`, the noisy queries, and `features`, every stage's output by name.

        Raises:
            DepthConfigError: a configuration that this detector does not have.
            ValueError: an image smaller than one cell of the coarsest level.
        """
        config = config or self.space.full
        self.check_images(images)
        self.check_config(config)
        denoising = _denoising(targets, images, self.num_classes) if self.training and targets is not None else None
        maps = self.features(images, config)
        assert config.exit is not None
        outputs = self.decoder([maps[name] for name in HEAD_INPUTS], config.exit, denoising)
        if denoising is not None:
            outputs["denoising"] = denoising
        if self.training:
            outputs["features"] = self.stage_features(maps)
        outputs["boxes"] = xyxy_pixels(outputs["boxes_cxcywh"], (images.shape[2], images.shape[3]))
        return outputs


def xyxy_pixels(boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Boxes [..., 4] from cxcywh in [0, 1] to xyxy in pixels of an image of `image_size` (height, width)."""
    height, width = image_size
    return cxcywh_to_xyxy(boxes) * boxes.new_tensor([width, height, width, height])


def _denoising(targets: Targets, images: Tensor, num_classes: int) -> DenoisingQueries | None:
    scale = images.new_tensor([images.shape[3], images.shape[2]] * 2)
    boxes = xyxy_to_cxcywh(targets.boxes / scale)
    return denoising_queries(
        [labels[valid] for labels, valid in zip(targets.labels, targets.valid, strict=True)],
        [image_boxes[valid] for image_boxes, valid in zip(boxes, targets.valid, strict=True)],
        num_classes,
    )

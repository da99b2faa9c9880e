"""A family of a test's own: four stages with names of their own, no neck, one of them with nothing to skip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from anydepth_perception.depth.space import FULL, ONLY, DepthConfig, Step
from training.families import Counting, Family, OutputSettings
from training.losses.distillation import DistillationSettings
from training.losses.objective import yolo_objective
from training.models.counts import Part, count, count_params
from training.models.detector import AnyDepthDetector
from training.models.fine import FineSettings
from training.models.folding import fold
from training.models.segments import SegmentModule, trunk_segments
from training.models.stage import AnyDepthSettings, SplitBlocks
from training.models.targets import Targets
from training.models.yolo_blocks import Bottleneck, conv
from training.models.yolo_head import YoloHead

CHANNELS = {"tiny": 16, "small": 24}
HEAD_INPUTS = ("second", "third", "fourth")


class ToyStage(nn.Module):
    """A convolution, and bottlenecks of which the first half is essential."""

    def __init__(self, channels: int, stride: int, num_blocks: int, any_depth: AnyDepthSettings) -> None:
        super().__init__()
        self.downsample = conv(channels, channels, 3, stride)
        self.blocks = SplitBlocks.build(
            num_blocks, lambda _, switchable: Bottleneck(channels, expansion=1.0, switchable=switchable), any_depth
        )

    def forward(self, x: Tensor, path: str) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks.on(path):
            x = block(x, path)
        return x


class ToyDetector(AnyDepthDetector):
    """Stem, four stages in a row, and a head on the last three."""

    map_inputs: Mapping[str, tuple[str, ...]] = {
        "stem": ("images",),
        "first": ("stem",),
        "second": ("first",),
        "third": ("second",),
        "fourth": ("third",),
    }
    backbone = ("first", "second", "third", "fourth")

    def __init__(self, size: str, num_classes: int, *, fine: FineSettings | None, any_depth: AnyDepthSettings) -> None:
        super().__init__(f"toy-{size}", num_classes, any_depth=any_depth)
        channels = CHANNELS[size]
        self.stem = conv(3, channels, 7, 4)
        shapes = {"first": (1, 2), "second": (2, 3), "third": (2, 1), "fourth": (2, 2)}
        self.stages = nn.ModuleDict(
            {name: ToyStage(channels, stride, blocks, any_depth) for name, (stride, blocks) in shapes.items()}
        )
        self.head = YoloHead((channels,) * 3, num_classes)
        self.set_space(("head",))

    def forward(
        self, images: Tensor, config: DepthConfig | None = None, targets: Targets | None = None
    ) -> dict[str, Any]:
        config = config or self.space.full
        self.check_images(images)
        self.check_config(config)
        maps = self.features(images, config)
        outputs: dict[str, Any] = self.head([maps[name] for name in HEAD_INPUTS])
        return {**outputs, "features": self.stage_features(maps)} if self.training else outputs


class ToyOutputs(nn.Module):
    """The head's boxes in [0, 1] of a square input, and its logits."""

    def __init__(self, head: YoloHead, side: int) -> None:
        super().__init__()
        self.head = fold(head, FULL)
        self.side = side

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.head(features)
        return outputs["boxes"] / self.side, outputs["logits"]


def segments(model: ToyDetector, image_size: tuple[int, int]) -> Iterator[SegmentModule]:
    yield from trunk_segments(model)
    yield SegmentModule("head", ToyOutputs(model.head, image_size[0]), HEAD_INPUTS, ("boxes", "logits"))


def count_head(model: ToyDetector, maps: Mapping[str, Tensor]) -> list[Part]:
    _, flops = count(lambda: model.head([maps[name] for name in HEAD_INPUTS]))
    return [Part("head", count_params(model.head), {Step("head", ONLY): flops})]


TOY = Family(
    name="toy",
    sizes=tuple(CHANNELS),
    build=ToyDetector,
    objective=yolo_objective,
    segments=segments,
    outputs=OutputSettings("letterbox", nms=True, iou_threshold=0.5, multi_label=False, ordered=True),
    counting=Counting("all of it", attention=False, count_outputs=count_head),
    distillation=DistillationSettings(),
)

"""Cuts a detector into the segments of a bundle: per segment a module without batch norms, its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anydepth_perception.bundle.manifest import EXITS
from anydepth_perception.depth.config import ESSENTIAL, FULL, STAGES
from training.models import detr, yolo
from training.models.decoder import Decoder
from training.models.detector import AnyDepthDetector
from training.models.detr import AnyDepthDetr, xyxy_pixels
from training.models.folding import fold
from training.models.query_selection import inverse_sigmoid
from training.models.yolo_head import YoloHead

TopDownStage = yolo.TopDownStage | detr.TopDownStage


@dataclass(frozen=True)
class SegmentModule:
    """One segment: its name, a module that takes and returns tensors by position, and the tensors' names."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class ImageStem(nn.Module):
    """uint8 [1, H, W, 3] RGB -> the stem's output: cast, scale and transposition done in the network."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, images: Tensor) -> Tensor:
        """Scales to [0, 1], moves the channels first, runs the stem."""
        # Cast first: TensorRT transposes no uint8.
        return self.stem(images.to(torch.float32).permute(0, 3, 1, 2) / 255)


class StageOnPath(nn.Module):
    """A stage bound to one path, its feature maps as positional arguments; alignment is a segment of its own."""

    def __init__(self, stage: nn.Module, path: str) -> None:
        super().__init__()
        self.stage = fold(stage, path)
        self.path = path

    def forward(self, *maps: Tensor) -> Tensor:
        """Runs the stage on its path."""
        run = self.stage.fuse if isinstance(self.stage, TopDownStage) else self.stage
        return run(*maps, path=self.path)


class Alignment(nn.Module):
    """Projection and FINE of a top-down stage's lower level: the same on both paths, so exported once."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = fold(stage, FULL)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Refines `low` under the guidance of `high`."""
        return self.stage.align(high, low)


class YoloOutputs(nn.Module):
    """YOLO's head: boxes [1, N, 4] xyxy in [0, 1] of the input, logits [1, N, C]."""

    def __init__(self, head: YoloHead, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.head = fold(head, FULL)
        height, width = image_size
        self.register_buffer("scale", torch.tensor([width, height, width, height], dtype=torch.float32))

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts from P3, P4, P5."""
        outputs = self.head(features)
        return outputs["boxes"] / self.scale, outputs["logits"]


class Selection(nn.Module):
    """Level projections and query selection: memory [1, N, 256], queries [1, Q, 256], boxes [1, Q, 4] cxcywh."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = fold(decoder, FULL)

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Selects from P3, P4, P5."""
        memory, sizes = self.decoder.memory(features)
        selected = self.decoder.selection(memory, sizes)
        return memory, selected.content, selected.boxes


class Layer(nn.Module):
    """One decoder layer: the queries and boxes after it."""

    def __init__(self, decoder: Decoder, index: int, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.decoder = decoder
        self.index = index
        self.sizes = sizes

    def forward(self, x: Tensor, boxes: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Refines queries [1, Q, 256] and boxes [1, Q, 4] cxcywh in [0, 1]."""
        x, offset = self.decoder.step(self.index, x, boxes, memory, self.sizes)
        return x, (offset + inverse_sigmoid(boxes)).sigmoid()


class Exit(nn.Module):
    """The outputs of a decoder exit: boxes [1, Q, 4] xyxy in [0, 1] of the input, logits [1, Q, C]."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Reads the class head."""
        return xyxy_pixels(boxes, (1, 1)), self.score(x)


def segment_modules(model: AnyDepthDetector, image_size: tuple[int, int]) -> Iterator[SegmentModule]:
    """Every segment of a detector in execution order, for images of `image_size` (height, width).

    A stage with nothing to skip has one segment, named after its full path.
    """
    is_detr = isinstance(model, AnyDepthDetr)
    yield SegmentModule("stem", ImageStem(fold(model.stem, FULL)), ("images",), ("stem",))
    skippable = model.skippable_stages
    for name in STAGES:
        stage, inputs = model.stages[name], model.stage_inputs[name]
        if isinstance(stage, TopDownStage) and (is_detr or stage.fine is not None):
            part = "fine" if stage.fine is not None else "project"
            yield SegmentModule(f"{name}.{part}", Alignment(stage), inputs, (f"{name}.aligned",))
            inputs = (inputs[0], f"{name}.aligned")
        for path in (ESSENTIAL, FULL) if name in skippable else (FULL,):
            yield SegmentModule(f"{name}.{path}", StageOnPath(stage, path), inputs, (name,))
        if is_detr and name == "p5":
            yield SegmentModule("aifi", fold(model.aifi, FULL), ("p5",), ("aifi",))
    if is_detr:
        yield from _decoder_segments(model.decoder, image_size)
    else:
        yield SegmentModule("head", YoloOutputs(model.head, image_size), yolo.HEAD_INPUTS, ("boxes", "logits"))


def _decoder_segments(decoder: Decoder, image_size: tuple[int, int]) -> Iterator[SegmentModule]:
    sizes = [tuple(-(-side // stride) for side in image_size) for stride in (8, 16, 32)]
    yield SegmentModule("selection", Selection(decoder), detr.HEAD_INPUTS, ("memory", "queries.0", "boxes.0"))
    for i in range(1, len(decoder.layers) + 1):
        before, after = (f"queries.{i - 1}", f"boxes.{i - 1}"), (f"queries.{i}", f"boxes.{i}")
        yield SegmentModule(f"decoder.{i}", Layer(decoder, i - 1, sizes), (*before, "memory"), after)
        yield SegmentModule(f"head.{i}", Exit(decoder.score[i - 1]), after, ("boxes", "logits"))


def pipeline(model: AnyDepthDetector, segments: list[str]) -> list[str]:
    """Execution order for the manifest: stages and the exits by their own name, other segments by theirs."""
    order: dict[str, None] = {}
    for segment in segments:
        name = segment.removesuffix(f".{ESSENTIAL}").removesuffix(f".{FULL}")
        order[EXITS if model.num_exits and name.startswith(("decoder.", "head.")) else name] = None
    return list(order)


def stage_segments(model: AnyDepthDetector) -> dict[str, dict[str, str]]:
    """The segment of every stage and path; a stage with nothing to skip runs its full one on both."""
    skippable = model.skippable_stages
    return {
        name: {path: f"{name}.{path if name in skippable else FULL}" for path in (ESSENTIAL, FULL)} for name in STAGES
    }


def exit_segments(model: AnyDepthDetector) -> dict[str, list[str]]:
    """The segments of every decoder exit: the layers up to it and its head."""
    return {
        str(last): [*(f"decoder.{i}" for i in range(1, last + 1)), f"head.{last}"]
        for last in range(1, model.num_exits + 1)
    }

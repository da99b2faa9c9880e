"""Cuts a detector into the segments of a bundle: per segment a module without batch norms, its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anydepth_perception.depth.space import EXITS, FULL, ONLY, DepthSpace, Entry, Step
from training.models.detector import AnyDepthDetector
from training.models.folding import fold
from training.models.stage import SharedPart, shared_part


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
    """A stage bound to one path, its feature maps as positional arguments; a shared part is a segment of its own."""

    def __init__(self, stage: nn.Module, path: str) -> None:
        super().__init__()
        self.stage = fold(stage, path)
        self.path = path

    def forward(self, *maps: Tensor) -> Tensor:
        """Runs the stage on its path."""
        if isinstance(self.stage, SharedPart) and self.stage.shared_part is not None:
            high, aligned = maps
            return self.stage.fuse(high, aligned, self.path)
        return self.stage(*maps, path=self.path)


class Alignment(nn.Module):
    """The part of a stage that is the same on both paths, so exported once."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        folded = fold(stage, FULL)
        assert isinstance(folded, SharedPart)
        self.stage = folded

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Makes `low` ready for the fusion with `high`."""
        return self.stage.align(high, low)


def segment_names(step: Step) -> tuple[str, ...]:
    """The segments that run for a step, in execution order: what every network's segments are called.

    A stage has one per path (`p4.essential`), an exit the decoder's layers up to it and its head (`decoder.1`,
    `decoder.2`, `head.2`); any other entry is one segment of its own name.
    """
    if step.entry == EXITS:
        last = int(step.way.removeprefix("d"))
        return (*(f"decoder.{number}" for number in range(1, last + 1)), f"head.{last}")
    return (step.entry,) if step.way == ONLY else (f"{step.entry}.{step.way}",)


def segments_by_step(space: DepthSpace) -> dict[Step, tuple[str, ...]]:
    """The segments of every way through every entry of a network, by name."""
    return {step: segment_names(step) for step in space.steps}


def trunk_segments(model: AnyDepthDetector) -> Iterator[SegmentModule]:
    """The segments of all entries that put out feature maps, in execution order.

    A stage with nothing to skip has one segment, named after its full path.
    """
    for entry in model.space.entries:
        stage_name = entry.name.partition(".")[0]
        if entry.is_stage:
            yield from _stage_segments(model, entry)
        elif stage_name in model.stages:
            inputs, output = model.map_inputs[stage_name], f"{stage_name}.aligned"
            yield SegmentModule(entry.name, Alignment(model.stages[stage_name]), inputs, (output,))
        elif entry.name in model.map_inputs:
            inputs = model.map_inputs[entry.name]
            module = fold(model.get_submodule(entry.name), FULL)
            if "images" in inputs:
                module = ImageStem(module)
            yield SegmentModule(entry.name, module, inputs, (entry.name,))


def _stage_segments(model: AnyDepthDetector, entry: Entry) -> Iterator[SegmentModule]:
    stage, inputs = model.stages[entry.name], model.map_inputs[entry.name]
    if shared_part(stage) is not None:
        inputs = (inputs[0], f"{entry.name}.aligned")
    for way in entry.ways:
        (name,) = segment_names(Step(entry.name, way))
        yield SegmentModule(name, StageOnPath(stage, way), inputs, (entry.name,))

"""The manifest of a model bundle: its schema (version 1) as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from anydepth_perception.depth.accuracy import AccuracyEstimate
from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step

SCHEMA_VERSION = 1

PRECISIONS = ("float32", "float16", "int8")
"""Arithmetic of a bundle's segments; int8 has pairs of QuantizeLinear and DequantizeLinear."""


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor at the boundary of a segment, of static shape."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Segment:
    """A piece of the detector in one ONNX file: a stage on one path, the stem, a head or a decoder layer."""

    name: str
    file: str
    sha256: str
    gflops: float
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class InputSpec:
    """The network's input, always uint8 [1, height, width, 3] RGB, and how a source image is fitted to it."""

    name: str
    height: int
    width: int
    resize: str
    pad_value: int


@dataclass(frozen=True)
class OutputNames:
    """Names of the raw outputs: boxes float32 [1, N, 4] xyxy in [0, 1] of the input, logits float32 [1, N, C].

    `ordered` tells whether a row stands for the same place in every image, as a grid's cell does; queries do not.
    """

    boxes: str
    logits: str
    ordered: bool


@dataclass(frozen=True)
class PostprocessSpec:
    """How raw outputs become detections.

    `nms` is True for a detector that repeats objects, which class-wise NMS above `iou_threshold` removes; `multi_label`
    tells whether a row may be reported once for each class above the threshold, or for its best class alone.
    """

    nms: bool
    iou_threshold: float
    multi_label: bool


@dataclass(frozen=True)
class AccuracyEntry:
    """Accuracy of one configuration, in [0, 1]; `measured` is False where it was estimated at export."""

    average_precision: float
    measured: bool


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracy of some configurations on a named data set, and what was fitted to them for all others, if anything."""

    dataset: str
    metric: str
    configurations: Mapping[DepthConfig, AccuracyEntry]
    estimate: AccuracyEstimate | None = None


@dataclass(frozen=True)
class ReferenceSpec:
    """The file of reference outputs, one of `files`, and the arithmetic that its outputs are of (`PRECISIONS`)."""

    file: str
    precision: str


@dataclass(frozen=True)
class Manifest:
    """Everything `manifest.json` says, checked for consistency.

    `space` is what there is to choose from; `parts` are the names of the segments that each of its steps runs.
    """

    name: str
    model: str
    family: str
    input: InputSpec
    outputs: OutputNames
    class_names: tuple[str, ...]
    space: DepthSpace
    parts: Mapping[Step, tuple[str, ...]]
    segments: Mapping[str, Segment]
    postprocess: PostprocessSpec
    accuracy: AccuracyTable
    provenance: Mapping[str, Any]
    files: Mapping[str, str]
    reference: ReferenceSpec | None = None

    def segment_names(self, config: DepthConfig) -> list[str]:
        """Names of the segments that run for `config`, in execution order.

        Raises:
            DepthConfigError: the network has no such configuration.
        """
        return [name for step in self.space.route(config) for name in self.parts[step]]

    @cached_property
    def gflops(self) -> Mapping[Step, float]:
        """Cost of every step for one frame, in GFLOPs."""
        return {step: sum(self.segments[name].gflops for name in names) for step, names in self.parts.items()}

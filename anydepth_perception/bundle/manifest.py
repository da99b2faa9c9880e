"""The manifest of a model bundle: its schema (version 1) as frozen dataclasses, and the reader that checks it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.estimate import AccuracyEstimate, parse_estimate
from anydepth_perception.bundle.fields import Fields, relative_file
from anydepth_perception.depth.config import ESSENTIAL, FULL, STAGES, DepthConfig, DepthConfigError

SCHEMA_VERSION = 1
EXITS = "exits"
"""Entry of `pipeline` that stands for the segments of the chosen decoder exit."""

PRECISIONS = ("float32", "float16", "int8")
"""Arithmetic of a bundle's segments; int8 has pairs of QuantizeLinear and DequantizeLinear."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_ELEMENTS = 1 << 28
_DTYPES = ("uint8", "int32", "int64", "float16", "float32", "bool")


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
    """Names of the raw outputs: boxes float32 [1, N, 4] xyxy in [0, 1] of the input, logits float32 [1, N, C]."""

    boxes: str
    logits: str


@dataclass(frozen=True)
class PostprocessSpec:
    """How raw outputs become detections: with class-wise NMS (yolo) or without (detr)."""

    nms: bool
    iou_threshold: float


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
    """Everything `manifest.json` says, checked for consistency."""

    name: str
    model: str
    family: str
    input: InputSpec
    outputs: OutputNames
    class_names: tuple[str, ...]
    num_exits: int
    pipeline: tuple[str, ...]
    stages: Mapping[str, Mapping[str, str]]
    exits: Mapping[int, tuple[str, ...]]
    segments: Mapping[str, Segment]
    postprocess: PostprocessSpec
    accuracy: AccuracyTable
    provenance: Mapping[str, Any]
    files: Mapping[str, str]
    reference: ReferenceSpec | None = None

    def segment_names(self, config: DepthConfig) -> list[str]:
        """Names of the segments that run for `config`, in execution order.

        Raises:
            DepthConfigError: the configuration's decoder exit does not exist here.
        """
        names: list[str] = []
        for entry in self.pipeline:
            if entry in self.stages:
                names.append(self.stages[entry][config.path(entry)])
            elif entry == EXITS:
                if config.exit is None or config.exit not in self.exits:
                    accepted = ", ".join(f"d{index}" for index in sorted(self.exits))
                    raise DepthConfigError(f"{config}: bundle {self.name!r} needs a decoder exit, one of {accepted}")
                names.extend(self.exits[config.exit])
            else:
                names.append(entry)
        if config.exit is not None and not self.exits:
            raise DepthConfigError(f"{config}: bundle {self.name!r} has no decoder exits")
        return names


def parse_manifest(document: object, file: str) -> Manifest:
    """Reads the parsed JSON of a manifest; `file` is named in errors.

    Keys that schema version 1 does not know are ignored, so that later writers may add some.

    Raises:
        BundleError: a key is missing or has the wrong type, a value is out of range, a stage lacks a path,
            or the tensors of the segments do not fit together.
    """
    root = Fields(document, file, "manifest")
    version = root.integer("schema_version", minimum=0)
    if version != SCHEMA_VERSION:
        raise BundleError(f"{file}: schema version {version} is not supported, this release reads {SCHEMA_VERSION}")
    num_exits = root.integer("num_exits", minimum=0, maximum=64)
    segments_fields = root.fields("segments")
    segments = {name: _parse_segment(name, segments_fields.fields(name)) for name in segments_fields.names()}
    postprocess = root.fields("postprocess")
    manifest = Manifest(
        name=root.text("name"),
        model=root.text("model"),
        family=root.choice("family", ("yolo", "detr")),
        input=_parse_input(root.fields("input")),
        outputs=OutputNames(root.fields("outputs").text("boxes"), root.fields("outputs").text("logits")),
        class_names=root.texts("class_names"),
        num_exits=num_exits,
        pipeline=root.texts("pipeline"),
        stages=_parse_stages(root.fields("stages")),
        exits=_parse_exits(root.fields("exits"), num_exits),
        segments=segments,
        postprocess=PostprocessSpec(
            nms=postprocess.boolean("nms"), iou_threshold=postprocess.number("iou_threshold", 0.0, 1.0)
        ),
        accuracy=_parse_accuracy(root.fields("accuracy"), num_exits),
        provenance=dict(root.fields("provenance").values),
        files=_parse_files(root.fields("files")),
        reference=_parse_reference(root) if "reference" in root.values else None,
    )
    if len(set(manifest.class_names)) != len(manifest.class_names):
        raise BundleError(f"{file}: class_names holds a name twice")
    _check_pipeline(manifest, file)
    return manifest


def _parse_input(fields: Fields) -> InputSpec:
    return InputSpec(
        name=fields.text("name"),
        height=fields.integer("height", minimum=1, maximum=8192),
        width=fields.integer("width", minimum=1, maximum=8192),
        resize=fields.choice("resize", ("letterbox", "stretch")),
        pad_value=fields.integer("pad_value", minimum=0, maximum=255),
    )


def _parse_segment(name: str, fields: Fields) -> Segment:
    return Segment(
        name=name,
        file=relative_file(fields.text("file"), fields),
        sha256=_sha256(fields.text("sha256"), "sha256", fields),
        gflops=fields.number("gflops", 0.0, 1e6),
        inputs=_parse_tensors(fields.fields("inputs")),
        outputs=_parse_tensors(fields.fields("outputs")),
    )


def _parse_tensors(fields: Fields) -> tuple[TensorSpec, ...]:
    tensors = []
    for name in fields.names():
        tensor = fields.fields(name)
        shape = tensor.integers("shape", minimum=1)
        elements = 1
        for size in shape:
            elements *= size
        if elements > _MAX_ELEMENTS:
            raise tensor.error(f"shape {list(shape)} holds more than {_MAX_ELEMENTS} elements")
        tensors.append(TensorSpec(name, shape, tensor.choice("dtype", _DTYPES)))
    if not tensors:
        raise fields.error("names no tensor")
    return tuple(tensors)


def _parse_stages(fields: Fields) -> dict[str, dict[str, str]]:
    unknown = [name for name in fields.names() if name not in STAGES]
    if unknown:
        raise fields.error(f"unknown stage {unknown[0]!r}, the stages are {', '.join(STAGES)}")
    return {name: {path: fields.fields(name).text(path) for path in (ESSENTIAL, FULL)} for name in STAGES}


def _parse_exits(fields: Fields, num_exits: int) -> dict[int, tuple[str, ...]]:
    expected = [str(index) for index in range(1, num_exits + 1)]
    if sorted(fields.names()) != sorted(expected):
        raise fields.error(f"has exits {sorted(fields.names())}, num_exits {num_exits} asks for {expected}")
    return {int(key): fields.texts(key) for key in expected}


def _parse_accuracy(fields: Fields, num_exits: int) -> AccuracyTable:
    table = fields.fields("configurations")
    entries: dict[DepthConfig, AccuracyEntry] = {}
    for key in table.names():
        try:
            config = DepthConfig.parse(key, num_exits)
        except DepthConfigError as error:
            raise table.error(str(error)) from error
        entry = table.fields(key)
        entries[config] = AccuracyEntry(entry.number("AP", 0.0, 1.0), entry.boolean("measured"))
    if entries:
        for alias, config in (("full", DepthConfig.full(num_exits)), ("base", DepthConfig.base(num_exits))):
            if config not in entries:
                raise table.error(f"has no entry for {alias} ({config})")
    estimate = parse_estimate(fields.fields("estimate"), num_exits) if "estimate" in fields.values else None
    return AccuracyTable(fields.text("dataset"), fields.text("metric"), entries, estimate)


def _parse_files(fields: Fields) -> dict[str, str]:
    return {relative_file(name, fields): _sha256(fields.text(name), name, fields) for name in fields.names()}


def _parse_reference(root: Fields) -> ReferenceSpec:
    fields = root.fields("reference")
    return ReferenceSpec(
        file=fields.choice("file", root.fields("files").names()), precision=fields.choice("precision", PRECISIONS)
    )


def _sha256(text: str, key: str, fields: Fields) -> str:
    if _SHA256.fullmatch(text) is None:
        raise fields.error(f"{key} {text!r} is not a SHA-256 sum in 64 lower-case hexadecimal digits")
    return text


def _check_pipeline(manifest: Manifest, file: str) -> None:
    """Checks that every mixture of paths (and every exit) is a network: reads follow writes, specs agree."""
    stages_in_order = tuple(entry for entry in manifest.pipeline if entry in STAGES)
    if stages_in_order != STAGES:
        raise BundleError(f"{file}: pipeline has the stages {stages_in_order}, expected {STAGES} in this order")
    if (EXITS in manifest.pipeline) != bool(manifest.num_exits):
        raise BundleError(f"{file}: pipeline holds {EXITS!r} exactly where num_exits is above 0 ({manifest.num_exits})")
    if len(set(manifest.pipeline)) != len(manifest.pipeline):
        raise BundleError(f"{file}: pipeline holds an entry twice")
    source = manifest.input
    tensors = {source.name: TensorSpec(source.name, (1, source.height, source.width, 3), "uint8")}
    ends = []
    for entry in manifest.pipeline:
        if entry == EXITS:
            for names in manifest.exits.values():
                branch = dict(tensors)
                for name in names:
                    _advance(branch, [_segment(manifest, name, file)], file)
                ends.append(branch)
        else:
            names_here = list(manifest.stages[entry].values()) if entry in manifest.stages else [entry]
            alternatives = [_segment(manifest, name, file) for name in names_here]
            for branch in ends or [tensors]:
                _advance(branch, alternatives, file)
    for branch in ends or [tensors]:
        _check_outputs(manifest, branch, file)


def _segment(manifest: Manifest, name: str, file: str) -> Segment:
    if name not in manifest.segments:
        raise BundleError(f"{file}: segment {name!r} is used but not listed under segments")
    return manifest.segments[name]


def _advance(tensors: dict[str, TensorSpec], alternatives: list[Segment], file: str) -> None:
    """Adds to `tensors` what one step of the pipeline writes, by any of its interchangeable segments."""
    written = {spec.name: spec for spec in alternatives[0].outputs}
    for segment in alternatives:
        for spec in segment.inputs:
            if spec.name not in tensors:
                raise BundleError(f"{file}: segment {segment.name!r} reads {spec.name!r}, which nothing before writes")
            if tensors[spec.name] != spec:
                raise BundleError(f"{file}: segment {segment.name!r} reads {spec}, but {tensors[spec.name]} is written")
        if {spec.name: spec for spec in segment.outputs} != written:
            raise BundleError(
                f"{file}: segments {alternatives[0].name!r} and {segment.name!r} write different tensors, "
                f"so their paths are not interchangeable"
            )
    for name in written:
        if name in tensors:
            raise BundleError(f"{file}: tensor {name!r} is written twice, again by segment {alternatives[0].name!r}")
    tensors.update(written)


def _check_outputs(manifest: Manifest, tensors: Mapping[str, TensorSpec], file: str) -> None:
    names = manifest.outputs
    for name in (names.boxes, names.logits):
        if name not in tensors:
            raise BundleError(f"{file}: output {name!r} is written by no segment of the pipeline")
    boxes, logits = tensors[names.boxes], tensors[names.logits]
    count = len(manifest.class_names)
    good_boxes = boxes.dtype == "float32" and len(boxes.shape) == 3 and boxes.shape[::2] == (1, 4)
    good_logits = logits.dtype == "float32" and logits.shape == (1, boxes.shape[1] if good_boxes else -1, count)
    if not (good_boxes and good_logits):
        raise BundleError(
            f"{file}: outputs are {boxes} and {logits}; expected float32 [1, N, 4] and float32 [1, N, {count}] "
            f"for {count} class_names"
        )

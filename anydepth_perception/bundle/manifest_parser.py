"""Reads the JSON of a manifest and checks all of it, so that nothing behind has to."""

from __future__ import annotations

import re
from collections.abc import Mapping

from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.fields import Fields, relative_file
from anydepth_perception.bundle.manifest import (
    PRECISIONS,
    SCHEMA_VERSION,
    AccuracyEntry,
    AccuracyTable,
    InputSpec,
    Manifest,
    OutputNames,
    PostprocessSpec,
    ReferenceSpec,
    Segment,
    TensorSpec,
)
from anydepth_perception.depth.accuracy import AccuracyEstimate
from anydepth_perception.depth.space import ESSENTIAL, EXITS, FULL, DepthConfig, DepthConfigError, DepthSpace, Step

MAX_CONFIGURATIONS = 1 << 14
"""All are looked at when a ladder is chosen; eight stages and six exits have 1,536."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_ELEMENTS = 1 << 28
_DTYPES = ("uint8", "int32", "int64", "float16", "float32", "bool")


def parse_manifest(document: object, file: str) -> Manifest:
    """Reads the parsed JSON of a manifest; `file` is named in errors.

    Keys that schema version 1 does not know are ignored, so that later writers may add some.

    Raises:
        BundleError: a key is missing or has the wrong type, a value is out of range, a stage lacks a path,
            or the tensors of the segments do not fit together.
    """
    root = Fields(document, file, "manifest", is_root=True)
    version = root.integer("schema_version", minimum=0)
    if version != SCHEMA_VERSION:
        raise BundleError(f"{file}: schema version {version} is not supported, this release reads {SCHEMA_VERSION}")
    space, parts = _parse_space(root)
    segments_fields = root.fields("segments")
    segments = {name: _parse_segment(name, segments_fields.fields(name)) for name in segments_fields.names()}
    postprocess = root.fields("postprocess")
    manifest = Manifest(
        name=root.text("name"),
        model=root.text("model"),
        family=root.text("family"),
        input=_parse_input(root.fields("input")),
        outputs=_parse_outputs(root.fields("outputs"), postprocess),
        class_names=root.texts("class_names"),
        space=space,
        parts=parts,
        segments=segments,
        postprocess=_parse_postprocess(postprocess),
        accuracy=_parse_accuracy(root.fields("accuracy"), space),
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


def _parse_outputs(fields: Fields, postprocess: Fields) -> OutputNames:
    # Before there was a third family, rows were ordered just where they needed NMS.
    ordered = fields.boolean("ordered") if "ordered" in fields.values else postprocess.boolean("nms")
    return OutputNames(fields.text("boxes"), fields.text("logits"), ordered)


def _parse_postprocess(fields: Fields) -> PostprocessSpec:
    nms = fields.boolean("nms")
    return PostprocessSpec(
        nms=nms,
        iou_threshold=fields.number("iou_threshold", 0.0, 1.0),
        multi_label=fields.boolean("multi_label") if "multi_label" in fields.values else not nms,
    )


def _parse_space(root: Fields) -> tuple[DepthSpace, dict[Step, tuple[str, ...]]]:
    """What there is to choose from, out of `pipeline`, `stages`, `num_exits` and `exits`; and its segments."""
    pipeline = root.texts("pipeline")
    num_exits = root.integer("num_exits", minimum=0, maximum=64)
    stages, exits = root.fields("stages"), root.fields("exits")
    if len(set(pipeline)) != len(pipeline):
        raise root.error("key 'pipeline' holds an entry twice")
    if (EXITS in pipeline) != bool(num_exits):
        raise root.error(f"key 'pipeline' holds {EXITS!r} exactly where num_exits is above 0; it is {num_exits}")
    if sorted(exits.names()) != sorted(str(number) for number in range(1, num_exits + 1)):
        raise exits.error(f"has exits {sorted(exits.names())}, num_exits {num_exits} asks for 1 to {num_exits}")
    unknown = [name for name in stages.names() if name not in pipeline or name == EXITS]
    if unknown:
        raise stages.error(f"names the stage {unknown[0]!r}, which is not an entry of the pipeline")
    paths = {name: [stages.fields(name).text(path) for path in (ESSENTIAL, FULL)] for name in stages.names()}
    skippable = [name for name, (essential, full) in paths.items() if essential != full]
    if 2 ** len(skippable) * max(1, num_exits) > MAX_CONFIGURATIONS:
        raise stages.error(
            f"makes 2^{len(skippable)} mixtures of paths with {num_exits} exits, at most {MAX_CONFIGURATIONS} "
            f"configurations are accepted"
        )
    try:
        space = DepthSpace.of(pipeline, paths, skippable, num_exits)
    except ValueError as error:
        raise root.error(str(error)) from error
    parts: dict[Step, tuple[str, ...]] = {}
    for step in space.steps:
        if step.entry == EXITS:
            parts[step] = exits.texts(step.way[1:])
        elif step.entry in paths:
            parts[step] = (paths[step.entry][step.way == FULL],)
        else:
            parts[step] = (step.entry,)
    return space, parts


def _parse_accuracy(fields: Fields, space: DepthSpace) -> AccuracyTable:
    table = fields.fields("configurations")
    entries: dict[DepthConfig, AccuracyEntry] = {}
    for key in table.names():
        try:
            config = space.parse(key)
        except DepthConfigError as error:
            raise table.error(str(error)) from error
        entry = table.fields(key)
        entries[config] = AccuracyEntry(entry.number("AP", 0.0, 1.0), entry.boolean("measured"))
    if entries:
        for alias, config in (("full", space.full), ("base", space.base)):
            if config not in entries:
                raise table.error(f"has no entry for {alias} ({config})")
    estimate = _parse_estimate(fields.fields("estimate"), space) if "estimate" in fields.values else None
    return AccuracyTable(fields.text("dataset"), fields.text("metric"), entries, estimate)


def _parse_estimate(fields: Fields, space: DepthSpace) -> AccuracyEstimate:
    """Reads `accuracy.estimate`, whose `terms` are texts like `p2`, `p2 fpn_p4` or `d3 p2`."""
    terms = fields.fields("terms")
    coefficients: dict[frozenset[str], float] = {}
    for text in terms.names():
        for name in text.split():
            if name not in space.stages and Step(EXITS, name) not in space.steps:
                raise terms.error(
                    f"has the term {text!r}; {name!r} is neither a stage nor one of {space.num_exits} exits"
                )
        coefficients[frozenset(text.split())] = terms.number(text, -10.0, 10.0)
    return AccuracyEstimate(
        space=space,
        intercept=fields.number("intercept", -10.0, 10.0),
        terms=coefficients,
        num_held_out=fields.integer("num_held_out", minimum=0),
        mean_absolute_error=fields.number("mean_absolute_error", 0.0, 1.0),
    )


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
    source = manifest.input
    ends = [{source.name: TensorSpec(source.name, (1, source.height, source.width, 3), "uint8")}]
    for entry in manifest.space.entries:
        ways = [
            [_segment(manifest, name, file) for name in manifest.parts[Step(entry.name, way)]] for way in entry.ways
        ]
        if entry.name == EXITS:
            ends = [dict(tensors) for tensors in ends for _ in ways]
            for tensors, segments in zip(ends, ways * (len(ends) // len(ways)), strict=True):
                for segment in segments:
                    _advance(tensors, [segment], file)
        else:
            for tensors in ends:
                _advance(tensors, [segment for segments in ways for segment in segments], file)
    for tensors in ends:
        _check_outputs(manifest, tensors, file)


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

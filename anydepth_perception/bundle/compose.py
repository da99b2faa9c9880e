"""Composition of consecutive segments into one ONNX graph, by concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.manifest import Segment, TensorSpec

_ELEMENT_TYPES = {
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "bool": TensorProto.BOOL,
}

_MAX_NAME = 1000
"""Characters of a tensor's name; libraries repeat names in their messages."""


def concatenate(
    models: Sequence[tuple[Segment, onnx.ModelProto]], outputs: Sequence[str], name: str, origin: str
) -> onnx.ModelProto:
    """Joins segments in execution order into one graph named `name`.

    Segments share the names of their boundary tensors and prefix all inner names with their own, so joining
    is putting the lists of nodes and initialisers one after the other. The result's inputs are the tensors
    that the segments read and do not write; its outputs are `outputs`. `origin` (the bundle) is named in errors.

    Raises:
        BundleError: a segment disagrees with the manifest, two segments share an inner name or ask for
            different opsets, or an output is written by none.
    """
    graph = onnx.GraphProto(name=name)
    written: dict[str, TensorSpec] = {}
    read: dict[str, TensorSpec] = {}
    owners: dict[str, str] = {}
    opsets: dict[str, int] = {}
    for segment, model in models:
        where = f"{origin}/{segment.file}"
        _check_model(segment, model, where)
        for opset in model.opset_import:
            domain = "" if opset.domain == "ai.onnx" else opset.domain
            if opsets.setdefault(domain, opset.version) != opset.version:
                raise BundleError(f"{where}: opset {opset.version}, but the segments before it use {opsets[domain]}")
        boundary = {spec.name for spec in segment.inputs + segment.outputs}
        _claim_names(segment, model.graph, boundary, owners, where)
        for spec in segment.inputs:
            if spec.name not in written:
                read.setdefault(spec.name, spec)
        written.update({spec.name: spec for spec in segment.outputs})
        graph.node.extend(model.graph.node)
        graph.initializer.extend(model.graph.initializer)
        graph.sparse_initializer.extend(model.graph.sparse_initializer)
        graph.value_info.extend(info for info in model.graph.value_info if info.name not in boundary)
    missing = [output for output in outputs if output not in written]
    if missing:
        raise BundleError(f"{origin}: no segment of {name!r} writes {missing[0]!r}")
    graph.input.extend(_value_info(spec) for spec in read.values())
    graph.output.extend(_value_info(written[output]) for output in outputs)
    graph.value_info.extend(_value_info(spec) for spec in written.values() if spec.name not in outputs)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(model.ir_version for _, model in models),
        producer_name="anydepth_perception",
    )


def value_specs(infos: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    """Names, static shapes (-1 where not static) and types of a graph's inputs or outputs."""
    dtypes = {int(number): dtype for dtype, number in _ELEMENT_TYPES.items()}
    specs = []
    for info in infos:
        tensor = info.type.tensor_type
        shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
        specs.append(TensorSpec(info.name, shape, dtypes.get(tensor.elem_type, f"type {tensor.elem_type}")))
    return tuple(specs)


def _check_model(segment: Segment, model: onnx.ModelProto, where: str) -> None:
    if model.functions:
        raise BundleError(f"{where}: holds model-local functions, which segments may not have")
    if not model.opset_import:
        raise BundleError(f"{where}: names no opset")
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise BundleError(f"{where}: initialiser {tensor.name!r} lies in another file, expected it inside")
    longest = max((len(name) for node in model.graph.node for name in (*node.input, *node.output)), default=0)
    if longest > _MAX_NAME:
        raise BundleError(f"{where}: a tensor's name has {longest} characters, at most {_MAX_NAME} are accepted")
    initialisers = {tensor.name for tensor in model.graph.initializer}
    inputs = value_specs([info for info in model.graph.input if info.name not in initialisers])
    for kind, actual, listed in (
        ("inputs", inputs, segment.inputs),
        ("outputs", value_specs(model.graph.output), segment.outputs),
    ):
        if set(actual) != set(listed):
            shown = ", ".join(map(str, actual)), ", ".join(map(str, listed))
            raise BundleError(f"{where}: {kind} are {shown[0]}, the manifest lists {shown[1]}")


def _claim_names(
    segment: Segment, graph: onnx.GraphProto, boundary: set[str], owners: dict[str, str], where: str
) -> None:
    names = [f"node {node.name}" for node in graph.node if node.name]
    names += [output for node in graph.node for output in node.output if output and output not in boundary]
    names += [tensor.name for tensor in graph.initializer]
    for name in names:
        owner = owners.setdefault(name, segment.name)
        if owner != segment.name:
            raise BundleError(f"{where}: the name {name!r} is also used inside segment {owner!r}")


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _ELEMENT_TYPES[spec.dtype], list(spec.shape))

"""Builds serialised TensorRT engines from float32 ONNX graphs, in float32 or float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto

from anydepth_perception.backends.base import BackendError
from anydepth_perception.backends.tensorrt_library import TensorRtLibrary
from anydepth_perception.bundle.compose import value_specs
from anydepth_perception.bundle.float16 import to_float16

PRECISIONS = ("float32", "float16")
"""Arithmetic of what the graph does not quantise itself."""

_DTYPES = ("uint8", "int32", "int64", "float16", "float32", "bool")


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        precision: one of `PRECISIONS`. Inputs and outputs keep the types of the graph.
        compute_capability: the GPU to build for, as `SM86`; only TensorRT-RTX can build for one that is not here.
            None builds for what the library takes by default: the GPU that is here, or with TensorRT-RTX every one
            that it supports from Ampere on.
        workspace_bytes: most memory that a layer may take while it computes; None leaves it to the library.
    """

    precision: str = "float16"
    compute_capability: str | None = None
    workspace_bytes: int | None = None


def build_engine(
    library: TensorRtLibrary, model: onnx.ModelProto, options: BuildOptions, timings: bytes = b""
) -> tuple[bytes, bytes]:
    """Builds a serialised engine from a segment or a composed graph of static shapes.

    Where the library has strongly typed networks, the graph is converted to float16 first, so that each layer's type
    is ours to say; else the library chooses, with constraints where float16 would do harm.

    Args:
        library: what to build with.
        model: float32, or with Q/DQ pairs.
        options: how.
        timings: what an earlier build measured; ignored if the library does not accept it.

    Returns:
        The engine, and the measurements including those of this build (b"" with TensorRT-RTX, which measures nothing).

    Raises:
        BackendError: the graph is refused; names the nodes and the reason.
    """
    name = model.graph.name
    _check_boundary(model.graph)
    _check_sources(model.graph)
    quantized = _check_quantization(model.graph)
    exact = exact_outputs(model)
    graph = model
    if options.precision == "float16" and library.is_strongly_typed:
        graph = _in_float16(model, exact)
    library.reason()  # forgets errors of earlier builds
    builder = library.module.Builder(library.logger)
    network = library.create_network(builder)
    parser = library.module.OnnxParser(network, library.logger)
    if not parser.parse(graph.SerializeToString()):
        nodes = [f"{node.name!r} ({node.op_type})" for node in graph.graph.node]
        refused = [library.parser_error(parser.get_error(index), nodes) for index in range(parser.num_errors)]
        raise BackendError(f"{library.name} cannot compile {name!r}: {'; '.join(refused) or library.reason()}")
    config = _configure(library, builder, network, options, quantized, exact)
    measured = library.open_timing_cache(config, timings) if library.times_kernels else None
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(f"{library.name} cannot compile {name!r}: {library.reason()}")
    return bytes(engine), b"" if measured is None else bytes(measured.serialize())


def exact_outputs(model: onnx.ModelProto) -> set[str]:
    """Outputs whose last arithmetic stays float32 in a float16 engine: all that are no feature maps [1, C, H, W].

    Boxes, logits and a decoder's queries: they are small, and in float16 boxes would move from layer to layer.
    """
    return {spec.name for spec in value_specs(model.graph.output) if spec.dtype == "float32" and len(spec.shape) != 4}


def _in_float16(model: onnx.ModelProto, exact: set[str]) -> onnx.ModelProto:
    boundary = {info.name for info in (*model.graph.input, *model.graph.output)}
    try:
        return to_float16(model, exact, boundary - exact)
    except (ValueError, onnx.shape_inference.InferenceError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise BackendError(f"TensorRT cannot compile {model.graph.name!r} in float16: {reason}") from error


def _configure(
    library: TensorRtLibrary, builder: Any, network: Any, options: BuildOptions, quantized: bool, exact: set[str]
) -> Any:
    config = builder.create_builder_config()
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(library.module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.compute_capability is not None:
        library.aim_at(config, options.compute_capability)
    if quantized:
        library.allow_int8(config)
    if options.precision == "float32":
        library.set_float32(config)
    elif not library.is_strongly_typed:
        library.allow_float16(config, network, exact)
    return config


def _check_boundary(graph: onnx.GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    infos = [info for info in (*graph.input, *graph.output) if info.name not in constants]
    for spec, info in zip(value_specs(infos), infos, strict=True):
        if spec.dtype not in _DTYPES or min(spec.shape, default=1) < 1:
            kind = TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()
            raise BackendError(
                f"TensorRT cannot compile {graph.name!r}: {spec.name} is {kind}{list(spec.shape)}, "
                f"expected a static shape of type {', '.join(_DTYPES)}"
            )


def _check_sources(graph: onnx.GraphProto) -> None:
    """The parser does not say which tensor it is that no node writes."""
    known = {"", *(tensor.name for tensor in graph.initializer), *(info.name for info in graph.input)}
    for node in graph.node:
        missing = [name for name in node.input if name not in known]
        if missing:
            raise BackendError(
                f"TensorRT cannot compile {graph.name!r}: node {node.name!r} ({node.op_type}) reads {missing[0]!r}, "
                f"which nothing before it writes"
            )
        known.update(node.output)


def _check_quantization(graph: onnx.GraphProto) -> bool:
    """Whether the graph holds Q/DQ pairs, of which TensorRT takes only symmetric ones.

    Raises:
        BackendError: they are of the kind that CPUs take.
    """
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in pairs:
        zero_point = kinds.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point == TensorProto.UINT8 or (zero_point is None and node.op_type == "QuantizeLinear"):
            raise BackendError(
                f"TensorRT cannot compile {graph.name!r}: node {node.name!r} ({node.op_type}) quantises to uint8, "
                f"TensorRT takes int8; make the bundle again with: quantize --for tensorrt"
            )
    return bool(pairs)

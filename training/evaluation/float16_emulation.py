"""Float16 arithmetic on a CPU that has none: bundles in float32 whose tensors take the values of float16 alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from anydepth_perception.bundle import Bundle, rewrite_bundle
from anydepth_perception.bundle.float16 import to_float16


def emulate_float16(bundle: Bundle, path: Path) -> Bundle:
    """Writes a copy of `bundle` that computes what its float16 copy computes, and runs on every backend.

    Raises:
        BundleError: a segment cannot be read.
    """
    outputs = (bundle.manifest.outputs.boxes, bundle.manifest.outputs.logits)
    segments = {
        name: round_to_float16(bundle.read_segment(segment), outputs)
        for name, segment in bundle.manifest.segments.items()
    }
    no_files = dict.fromkeys(bundle.manifest.files)
    return rewrite_bundle(
        bundle, path, manifest={"name": f"{bundle.name}-float16"}, segments=segments, files=no_files
    )


def round_to_float16(model: onnx.ModelProto, keep_float32: Collection[str] = ()) -> onnx.ModelProto:
    """A float32 graph that rounds wherever `to_float16(model, keep_float32)` stores a tensor.

    Each operator computes in float32 on rounded values and rounds its result, as an accelerator does that accumulates
    in float32. ONNX Runtime's CPU, given the float16 graph itself, leaves out most of the rounding in between.
    """
    half = onnx.shape_inference.infer_shapes(to_float16(model, keep_float32), check_type=True, strict_mode=True)
    graph = half.graph
    infos = [*graph.input, *graph.output, *graph.value_info]
    halves = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = [rewritten for node in graph.node for rewritten in _in_float32(node, halves)]
    weights = [_widened(tensor) for tensor in graph.initializer]
    for info in infos:
        if info.name in halves:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    return half


def _in_float32(node: NodeProto, halves: set[str]) -> Iterator[NodeProto]:
    """A node of the float16 graph in float32, and behind it the rounding of what it stores in float16."""
    if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16:
        node.attribute[0].i = TensorProto.FLOAT
    rounded = [name for name in node.output if name in halves]
    node.output[:] = [f"{name}:exact" if name in halves else name for name in node.output]
    yield node
    for name in rounded:
        yield helper.make_node("Cast", [f"{name}:exact"], [f"{name}:half"], to=TensorProto.FLOAT16)
        yield helper.make_node("Cast", [f"{name}:half"], [name], to=TensorProto.FLOAT)


def _widened(tensor: TensorProto) -> TensorProto:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)

"""Placement: which convolutions of a segment compute in 8 bits, and which tensors get Q/DQ pairs for that."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

CONVOLUTIONS, ACTIVATIONS = "convolutions", "activations"
PLACEMENTS = (CONVOLUTIONS, ACTIVATIONS)

_SAME_RANGE = ("MaxPool", "Resize", "Slice")
"""Operators that put out values of their input: the same scale on both sides lets an engine skip the pair."""

_ACTIVATION_OPERATORS = (*_SAME_RANGE, "Add", "AveragePool", "Concat", "Mul", "Relu", "Sigmoid")


@dataclass(frozen=True)
class SegmentPairs:
    """What becomes 8 bits in one segment.

    `convolutions`: output names of the convolutions whose weights are quantised. `read`: tensors of which only the
    nodes listed (by first output) read the quantised copy. `written`: tensors that exist only quantised.
    `same_range`: output -> input, of tensors that share one range.
    """

    convolutions: frozenset[str]
    read: dict[str, frozenset[str]]
    written: frozenset[str]
    same_range: dict[str, str]

    @property
    def tensors(self) -> frozenset[str]:
        """All tensors that need a range."""
        return frozenset(self.read) | self.written


def choose_pairs(
    model: onnx.ModelProto, *, placement: str, min_products: int, final_outputs: Collection[str]
) -> SegmentPairs:
    """Decides for one float32 segment.

    A convolution is quantised if each of its outputs sums up at least `min_products` products and another convolution
    follows it wherever it leads to one of `final_outputs` (boxes and logits are not computed in 8 bits).

    Args:
        model: the segment.
        placement: `convolutions` puts pairs in front of convolutions alone; `activations` also behind them and
            around the element-wise operators and poolings that follow.
        min_products: input channels per group x kernel area.
        final_outputs: names of the bundle's outputs.
    """
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    last = _last_convolutions(graph, final_outputs)
    convolutions = [
        node
        for node in graph.node
        if node.op_type == "Conv"
        and node.output[0] not in last
        and node.input[1] in shapes
        and shapes[node.input[1]][1] > 1
        and int(np.prod(shapes[node.input[1]][1:])) >= min_products
    ]
    names = frozenset(node.output[0] for node in convolutions)
    if placement == CONVOLUTIONS or not convolutions:
        return SegmentPairs(names, _readers(convolutions, shapes, frozenset()), frozenset(), {})
    followers = _followers(graph, names, shapes)
    fused = _before_relu(graph, names, followers)
    written = (names - fused) | frozenset(node.output[0] for node in followers)
    same_range = {
        node.output[0]: node.input[0]
        for node in followers
        if node.op_type in _SAME_RANGE and node.output[0] not in {output.name for output in graph.output}
    }
    relus = {name for node in followers if node.input[0] in fused for name in node.output}
    readers = [node for node in (*convolutions, *followers) if node.output[0] not in relus]
    return SegmentPairs(names, _readers(readers, shapes, written), written, same_range)


def _readers(
    nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], written: frozenset[str]
) -> dict[str, frozenset[str]]:
    """Per tensor that is not `written` anyway, the nodes that read it quantised."""
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.input[:1] if node.op_type in ("Conv", *_SAME_RANGE) else node.input:
            if name and name not in shapes and name not in written:
                readers.setdefault(name, set()).add(node.output[0])
    return {name: frozenset(outputs) for name, outputs in readers.items()}


def _last_convolutions(graph: onnx.GraphProto, final_outputs: Collection[str]) -> set[str]:
    """Outputs of the convolutions behind which there is none on the way to a final output."""
    writers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    seen: set[str] = set()
    names = [output.name for output in graph.output if output.name in final_outputs]
    while names:
        name = names.pop()
        node = writers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            found.add(name)
        else:
            names += node.input
    return found


def _followers(
    graph: onnx.GraphProto, convolutions: frozenset[str], shapes: dict[str, tuple[int, ...]]
) -> list[onnx.NodeProto]:
    """Element-wise operators and poolings that read nothing but 8-bit tensors, and that something 8-bit reads."""
    available = convolutions | {value.name for value in graph.input if value.type.tensor_type.elem_type == 1}
    forward = []
    for node in graph.node:
        data = node.input[:1] if node.op_type in _SAME_RANGE else node.input
        if node.op_type in _ACTIVATION_OPERATORS and all(name in available for name in data):
            forward.append(node)
            available = available | set(node.output)
    wanted = {output.name for output in graph.output}
    wanted |= {node.input[0] for node in graph.node if node.output[0] in convolutions}
    kept = []
    for node in reversed(forward):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def _before_relu(
    graph: onnx.GraphProto, convolutions: frozenset[str], followers: list[onnx.NodeProto]
) -> frozenset[str]:
    """Outputs of convolutions that only a ReLU reads: it is a part of them, and the pair comes behind it."""
    relus = {node.input[0] for node in followers if node.op_type == "Relu"}
    read = [name for node in graph.node for name in node.input]
    return frozenset(name for name in convolutions & relus if read.count(name) == 1)

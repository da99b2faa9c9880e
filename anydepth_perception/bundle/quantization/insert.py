"""Insertion of Q/DQ pairs into a segment, and of its weights in int8."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anydepth_perception.bundle.quantization.calibrate import Range
from anydepth_perception.bundle.quantization.place import SegmentPairs

WEIGHT_STEPS = {7: 64, 8: 127}
"""The largest weight by the bits that weights take.

x86 CPUs without VNNI add two products of a uint8 activation and an int8 weight in 16 bits, and cut the sum off at
32767: 2 x 255 x 64 fits in there, 2 x 255 x 127 does not.
"""


def insert_pairs(
    model: onnx.ModelProto,
    name: str,
    pairs: SegmentPairs,
    ranges: Mapping[str, Range],
    *,
    symmetric: bool,
    signed: bool,
    weight_bits: int,
) -> onnx.ModelProto:
    """An INT8 copy of a segment that computes what `pairs` says in 8 bits.

    Weights are int8 with one scale per output channel, as large as `WEIGHT_STEPS` has it at most. Activations are
    uint8, with zero point 128 where `symmetric`; where `signed` as well, the same steps are int8 with zero point 0. A
    boundary tensor stays float32; its scale follows from its range alone, so that it is the same in every segment.
    New names are prefixed with `name`, the segment's.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    editor = _Editor(graph, name, ranges, symmetric, signed, WEIGHT_STEPS[weight_bits])
    editor.run(pairs)
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    quantized.graph.CopyFrom(graph)
    return quantized


class _Editor:
    """Rewrites one graph in place."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        name: str,
        ranges: Mapping[str, Range],
        symmetric: bool,
        signed: bool,
        weight_steps: int,
    ) -> None:
        self.graph = graph
        self.name = name
        self.ranges = ranges
        self.symmetric = symmetric
        self.signed = signed
        self.weight_steps = weight_steps
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.added: list[onnx.TensorProto] = []
        self.dequantized: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self, pairs: SegmentPairs) -> None:
        outputs = {output.name for output in self.graph.output}
        for node in self.graph.node:
            first = node.output[0]
            for position, source in enumerate(node.input):
                if source in pairs.written:
                    if source not in outputs:
                        node.input[position] = self._inner(source, ":dequantized")
                elif first in pairs.read.get(source, ()):
                    node.input[position] = self._read(source)
            if first in pairs.convolutions:
                node.input[1] = self._weight(node.input[1])
            self.nodes.append(node)
            for position, target in enumerate(node.output):
                if target in pairs.written:
                    raw = self._inner(target, ":raw") if target in outputs else target
                    node.output[position] = raw
                    self._pair(target, raw, target if target in outputs else self._inner(target, ":dequantized"))
        used = {name for node in self.nodes for name in node.input}
        initialisers = [tensor for tensor in (*self.graph.initializer, *self.added) if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(initialisers)

    def _inner(self, tensor: str, suffix: str) -> str:
        prefix = f"{self.name}/"
        return (tensor if tensor.startswith(prefix) else prefix + tensor) + suffix

    def _read(self, source: str) -> str:
        """The name under which the quantised copy of `source` is read."""
        if source not in self.dequantized:
            self.dequantized[source] = self._inner(source, ":dequantized")
            self._pair(source, source, self.dequantized[source])
        return self.dequantized[source]

    def _pair(self, tensor: str, source: str, target: str) -> None:
        scale, zero_point = _parameters(self.ranges[tensor], self.symmetric, self.signed)
        parameters = [
            self._add(self._inner(tensor, ":scale"), scale),
            self._add(self._inner(tensor, ":zero_point"), zero_point),
        ]
        middle = self._inner(tensor, ":quantized")
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, *parameters], [middle], name=f"{middle}:node"),
            helper.make_node(
                "DequantizeLinear", [middle, *parameters], [target], name=self._inner(tensor, ":dequantized:node")
            ),
        ]

    def _weight(self, weight: str) -> str:
        target = self._inner(weight, ":dequantized")
        if weight not in self.dequantized:
            self.dequantized[weight] = target
            values = numpy_helper.to_array(self.weights[weight])
            largest = np.abs(values).reshape(len(values), -1).max(axis=1)
            scale = np.where(largest > 0, largest / self.weight_steps, 1.0).astype(np.float32)
            steps = np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1)))
            steps = np.clip(steps, -self.weight_steps, self.weight_steps).astype(np.int8)
            names = [
                self._add(self._inner(weight, ":int8"), steps),
                self._add(self._inner(weight, ":scale"), scale),
                self._add(self._inner(weight, ":zero_point"), np.zeros(len(scale), np.int8)),
            ]
            self.nodes.append(helper.make_node("DequantizeLinear", names, [target], name=f"{target}:node", axis=0))
        return target

    def _add(self, name: str, values: np.ndarray) -> str:
        self.added.append(numpy_helper.from_array(values, name))
        return name


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a segment holds 8-bit weights or Q/DQ pairs already."""
    types = (TensorProto.INT8, TensorProto.UINT8)
    pairs = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
    return pairs or any(tensor.data_type in types for tensor in model.graph.initializer)


def _parameters(limits: Range, symmetric: bool, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point, such that zero is met exactly."""
    low, high = limits
    if symmetric:
        zero_point = np.array(0, np.int8) if signed else np.array(128, np.uint8)
        return np.array(max(high / 127, 1e-12), np.float32), zero_point
    scale = max((high - low) / 255, 1e-12)
    return np.array(scale, np.float32), np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)

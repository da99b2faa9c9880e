"""Float16 copies of segments and composed graphs, every cast written out, as strongly typed networks need them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT32_OPERATORS = ("GatherElements", "GridSample", "Range", "ReduceMax", "TopK")
"""Operators that stay in float32: they select or sample by values that float16 would round together."""

_MATRIX_OPERATORS = ("Conv", "Gemm", "MatMul")
_FLOAT32_INPUTS = (("Resize", 2),)  # its scales, whatever the type of the image
_TYPE_NAMES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def to_float16(
    model: onnx.ModelProto, keep_float32: Collection[str] = (), cast_only: Collection[str] = ()
) -> onnx.ModelProto:
    """A float16 copy of a float32 graph.

    Inputs and outputs become float16 as well, so that segments still fit together; images stay uint8. Those named in
    `keep_float32` stay float32, and with such an output the arithmetic that leads to it from the last convolutions and
    matrix products: it costs little, and above 512 a pixel coordinate in float16 has steps of half a pixel.

    Args:
        model: a segment or a composed graph; it is left as it is.
        keep_float32: usually the names of boxes and logits; names that are no input or output here are ignored.
        cast_only: names of inputs and outputs that stay float32 as well, but only they: all before or behind them
            is float16.

    Raises:
        ValueError: a node holds a subgraph.
        onnx.shape_inference.InferenceError: the graph is not valid.
    """
    converted = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    _Conversion(converted.graph, keep_float32, cast_only).run()
    return converted


class _Conversion:
    """Rewrites one graph in place; `types` has the present type of every float tensor that is already written."""

    def __init__(self, graph: GraphProto, keep_float32: Collection[str], cast_only: Collection[str]) -> None:
        self.graph = graph
        self.keep_float32 = keep_float32
        self.float32_boundary = {*keep_float32, *cast_only}
        self.weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        infos = [*graph.input, *graph.output, *graph.value_info]
        self.floats = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= self.weights.keys()
        self.types: dict[str, int] = {}
        self.nodes: list[NodeProto] = []
        self.initialisers = [tensor for tensor in graph.initializer if tensor.name not in self.weights]
        self.names: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        graph = self.graph
        for info in graph.input:
            if info.name in self.floats:
                info.type.tensor_type.elem_type = self.types[info.name] = self._boundary_type(info.name)
        float32_nodes = self._arithmetic_before_outputs()
        for index, node in enumerate(graph.node):
            self._convert(node, stays=index in float32_nodes or node.op_type in FLOAT32_OPERATORS)
        for info in graph.output:
            if info.name in self.floats:
                info.type.tensor_type.elem_type = self._boundary_type(info.name)
                self._finish(info.name, self._boundary_type(info.name))
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.initialisers)

    def _boundary_type(self, name: str) -> int:
        return TensorProto.FLOAT if name in self.float32_boundary else TensorProto.FLOAT16

    def _arithmetic_before_outputs(self) -> set[int]:
        """Indices of the nodes between the last matrix operators and the float32 outputs."""
        writers = {name: index for index, node in enumerate(self.graph.node) for name in node.output}
        found: set[int] = set()
        names = [info.name for info in self.graph.output if info.name in self.keep_float32]
        while names:
            index = writers.get(names.pop())
            if index is not None and index not in found and self.graph.node[index].op_type not in _MATRIX_OPERATORS:
                found.add(index)
                names += [name for name in self.graph.node[index].input if name in self.floats]
        return found

    def _convert(self, node: NodeProto, *, stays: bool) -> None:
        """Adds `node` behind the casts that it needs."""
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise ValueError(f"{self.graph.name!r}: node {node.name!r} ({node.op_type}) holds a subgraph")
        # Constants and the like make float32 out of nothing.
        makes = node.op_type != "Cast" and not any(name in self.floats for name in node.input)
        kind = TensorProto.FLOAT if stays or makes else TensorProto.FLOAT16
        for position, name in enumerate(node.input):
            if name in self.floats:
                wanted = TensorProto.FLOAT if (node.op_type, position) in _FLOAT32_INPUTS else kind
                node.input[position] = self._read_as(name, wanted)
        for name in node.output:
            if name in self.floats:
                self.types[name] = kind
                if node.op_type == "Cast":
                    node.attribute[0].i = kind
        self.nodes.append(node)

    def _read_as(self, name: str, kind: int) -> str:
        """The name under which the tensor `name` can be read as `kind`."""
        if self.types.get(name) == kind:
            return name
        if (name, kind) not in self.names:
            self.names[name, kind] = f"{name}:{_TYPE_NAMES[kind]}"
            if name in self.weights:
                self.initialisers.append(_weight(self.weights[name], self.names[name, kind], kind))
            else:
                self._cast(name, self.names[name, kind], kind)
        return self.names[name, kind]

    def _finish(self, output: str, kind: int) -> None:
        """Gives the output its name in the type that it should have."""
        if self.types[output] == kind:
            return
        inner = f"{output}:inner"
        for node in self.nodes:
            node.input[:] = [inner if name == output else name for name in node.input]
            node.output[:] = [inner if name == output else name for name in node.output]
        self._cast(inner, output, kind)

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}:cast", to=kind))


def _weight(tensor: TensorProto, name: str, kind: int) -> TensorProto:
    """A copy of a float32 initialiser; infinities stay infinite, all else finite, and nothing becomes zero."""
    values = numpy_helper.to_array(tensor)
    if kind == TensorProto.FLOAT16:
        limits = np.finfo(np.float16)
        finite = np.where(np.isinf(values), values, np.clip(values, limits.min, limits.max)).astype(np.float16)
        # The constant that keeps a division from zero must not become zero itself.
        vanished = (finite == 0) & (values != 0)
        values = np.where(vanished, np.copysign(limits.smallest_subnormal, values), finite).astype(np.float16)
    return numpy_helper.from_array(values, name)

"""Small graphs for tests of backends: one that every backend takes, and some that none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anydepth_perception.bundle.manifest import TensorSpec

IMAGES = TensorSpec("images", (1, 5, 7, 3), "uint8")
ADDEND = TensorSpec("addend", (1, 3, 5, 7), "float32")
TOTAL = TensorSpec("total", (1, 3, 5, 7), "float32")
LARGEST = TensorSpec("largest", (1, 3, 1, 1), "float32")
VECTOR = (1000,)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    name: str = "sample",
) -> onnx.ModelProto:
    """A model with these boundary tensors."""

    def described(spec: TensorSpec) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        return helper.make_tensor_value_info(spec.name, kind, spec.shape)

    constants = [numpy_helper.from_array(value, label) for label, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, name, [described(s) for s in inputs], [described(s) for s in outputs], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def sample_model() -> onnx.ModelProto:
    """Writes total = images as [1, 3, H, W] + addend, largest = its maximum per channel."""
    return model_of(
        [
            helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Add", ["planes", "addend"], ["total"]),
            helper.make_node("GlobalMaxPool", ["total"], ["largest"]),
        ],
        [IMAGES, ADDEND],
        [TOTAL, LARGEST],
    )


def sample_inputs(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, IMAGES.shape, np.uint8),
        "addend": rng.normal(size=ADDEND.shape).astype(np.float32),
    }


def sample_results(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = inputs["images"].transpose(0, 3, 1, 2).astype(np.float32) + inputs["addend"]
    return {"total": total, "largest": total.max(axis=(2, 3), keepdims=True)}


def vector(name: str, size: int = VECTOR[0]) -> TensorSpec:
    return TensorSpec(name, (size,), "float32")


def shift_model(source: str, target: str, amount: float, size: int = VECTOR[0]) -> onnx.ModelProto:
    """Writes target = source + amount, both float32 [size]."""
    node = helper.make_node("Add", [source, "amount"], [target])
    return model_of([node], [vector(source, size)], [vector(target, size)], {"amount": np.float32([amount])})


def unknown_operator() -> onnx.ModelProto:
    return model_of([helper.make_node("NoSuchOperator", ["a"], ["b"])], [vector("a")], [vector("b")], name="bad")


def shapes_that_do_not_fit() -> onnx.ModelProto:
    wide = TensorSpec("a", (2, 3), "float32")
    product = TensorSpec("b", (2, 3), "float32")
    return model_of([helper.make_node("MatMul", ["a", "a"], ["b"])], [wide], [product], name="bad")


def types_that_do_not_fit() -> onnx.ModelProto:
    whole = TensorSpec("n", VECTOR, "int64")
    return model_of([helper.make_node("Add", ["a", "n"], ["b"])], [vector("a"), whole], [vector("b")], name="bad")


def tensor_from_nowhere() -> onnx.ModelProto:
    return model_of([helper.make_node("Relu", ["missing"], ["b"])], [vector("a")], [vector("b")], name="bad")


def free_batch() -> onnx.ModelProto:
    model = model_of([helper.make_node("Relu", ["a"], ["b"])], [vector("a")], [vector("b")], name="bad")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def type_of_no_buffer() -> onnx.ModelProto:
    a, b = (TensorSpec(name, VECTOR, "float64") for name in "ab")
    return model_of([helper.make_node("Identity", ["a"], ["b"])], [a], [b], name="bad")

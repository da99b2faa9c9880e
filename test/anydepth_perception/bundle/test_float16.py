"""Float16 copies of graphs: typed throughout, close to float32, precise where it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from anydepth_perception.aisle import AisleScene
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.bundle.compose import value_specs
from anydepth_perception.bundle.float16 import to_float16
from anydepth_perception.detection.preprocess import Preprocessor

OUTPUTS = ("boxes", "logits")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.load(find_bundle("aisle-yolo-t"))


def graph_of(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], outputs: dict[str, list[int]]
) -> onnx.ModelProto:
    """A float32 graph that reads `x` [1, 8]."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def initialiser(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name.startswith(name))


def types_around(model: onnx.ModelProto, operator: str) -> set[int]:
    """Types of all floating-point tensors that the nodes of an operator read and write."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for info in (*inferred.input, *inferred.output, *inferred.value_info):
        types[info.name] = info.type.tensor_type.elem_type
    names = [name for node in inferred.node if node.op_type == operator for name in (*node.input, *node.output)]
    assert names
    return {types[name] for name in names} - {TensorProto.INT64}


def test_the_shipped_detector_scores_and_places_as_in_float32(shipped: Bundle) -> None:
    size = shipped.manifest.input
    preprocess = Preprocessor(size.height, size.width)
    preprocess(AisleScene(5000, 640, 480).render(3.0).image)
    model = shipped.compose(shipped.full)
    boxes, logits = run(model, images=preprocess.buffer)
    half_boxes, half_logits = run(to_float16(model, OUTPUTS), images=preprocess.buffer)
    scores = sigmoid(logits)
    seen = scores.max(-1) > 0.05
    assert seen.sum() > 5
    assert np.abs(sigmoid(half_logits) - scores).max() < 2e-2
    assert np.abs(half_boxes - boxes)[seen].max() * size.width < 0.5


def test_every_tensor_of_the_shipped_detector_has_the_type_that_its_operator_needs(shipped: Bundle) -> None:
    onnx.checker.check_model(to_float16(shipped.compose(shipped.full), OUTPUTS), full_check=True)


def test_weights_take_half_the_memory(shipped: Bundle) -> None:
    model = shipped.compose(shipped.full)
    assert to_float16(model, OUTPUTS).ByteSize() < 0.55 * model.ByteSize()


def test_segments_still_fit_together(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    written: dict[str, str] = {"images": "uint8"}
    for segment in bundle.segments_for(bundle.full):
        graph = to_float16(bundle.read_segment(segment), OUTPUTS).graph
        for spec in value_specs(graph.input):
            assert written[spec.name] == spec.dtype
        written.update({spec.name: spec.dtype for spec in value_specs(graph.output)})
    assert written.pop("images") == "uint8"
    assert {name: written.pop(name) for name in OUTPUTS} == {"boxes": "float32", "logits": "float32"}
    assert set(written.values()) == {"float16"}


def test_the_graph_given_is_left_as_it_is(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    model = bundle.compose(bundle.full)
    before = model.SerializeToString(deterministic=True)
    to_float16(model, OUTPUTS)
    assert model.SerializeToString(deterministic=True) == before


def test_an_input_can_stay_float32() -> None:
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], {}, {"y": [1, 8]})
    assert [spec.dtype for spec in value_specs(to_float16(model, ("x",)).graph.input)] == ["float32"]


def test_arithmetic_on_the_way_to_a_kept_output_is_float32() -> None:
    nodes = [helper.make_node("MatMul", ["x", "eye"], ["product"]), helper.make_node("Add", ["product", "far"], ["y"])]
    weights = {"eye": np.eye(8, dtype=np.float32), "far": np.full(8, 600.1, np.float32)}
    x = np.arange(8, dtype=np.float16)[None] / 16
    (y,) = run(to_float16(graph_of(nodes, weights, {"y": [1, 8]}), ("y",)), x=x)
    np.testing.assert_allclose(y, x.astype(np.float32) + np.float32(600.1), atol=1e-4)


def test_a_boundary_that_is_only_cast_leaves_the_arithmetic_in_float16() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Sigmoid", ["h"], ["y"])]
    model = to_float16(graph_of(nodes, {}, {"y": [1, 8]}), cast_only=("x", "y"))
    onnx.checker.check_model(model, full_check=True)
    assert {spec.dtype for spec in value_specs([*model.graph.input, *model.graph.output])} == {"float32"}
    assert types_around(model, "Relu") | types_around(model, "Sigmoid") == {TensorProto.FLOAT16}


def test_a_kept_output_of_a_matrix_product_is_cast() -> None:
    model = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.eye(8, dtype=np.float32)}, {"y": [1, 8]})
    (y,) = run(to_float16(model, ("y",)), x=np.ones((1, 8), np.float16))
    assert y.dtype == np.float32


def selection() -> onnx.ModelProto:
    """Reads the two largest values of `x` by their indices, and samples an image there; the image is read twice."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], axes=[1], keepdims=1),
        helper.make_node("TopK", ["x", "count"], ["largest", "indices"]),
        helper.make_node("GatherElements", ["x", "indices"], ["values"], axis=1),
        helper.make_node("Add", ["values", "top"], ["raised"]),
        helper.make_node("Reshape", ["raised", "grid_shape"], ["grid"]),
        helper.make_node("GridSample", ["image", "grid"], ["sampled"], align_corners=1),
    ]
    weights = {
        "count": np.array([2], np.int64),
        "grid_shape": np.array([1, 1, 1, 2], np.int64),
        "image": np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4),
    }
    return graph_of(nodes, weights, {"values": [1, 2], "sampled": [1, 1, 1, 1]})


@pytest.mark.parametrize("operator", ["ReduceMax", "TopK", "GatherElements", "GridSample"])
def test_operators_that_select_or_sample_stay_float32(operator: str) -> None:
    assert types_around(to_float16(selection()), operator) == {TensorProto.FLOAT}


def test_selecting_and_sampling_give_the_same_values() -> None:
    x = np.array([[0.5, -1, 0.25, 0.125, -0.5, -0.25, 0, 0.0625]], np.float32)
    expected = run(selection(), x=x)
    for value, half in zip(expected, run(to_float16(selection()), x=x.astype(np.float16)), strict=True):
        assert half.dtype == np.float16
        np.testing.assert_allclose(half, value, atol=1e-2)


def test_scales_of_a_resize_stay_float32() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["image"]),
        helper.make_node("Resize", ["image", "", "scales"], ["y"], mode="nearest"),
    ]
    weights = {"shape": np.array([1, 1, 2, 4], np.int64), "scales": np.array([1, 1, 2, 2], np.float32)}
    converted = to_float16(graph_of(nodes, weights, {"y": [1, 1, 4, 8]}))
    onnx.checker.check_model(converted, full_check=True)
    assert initialiser(converted, "scales").dtype == np.float32


@pytest.mark.parametrize(("value", "expected"), [(np.inf, np.inf), (-np.inf, -np.inf), (1e6, 65504), (-1e6, -65504)])
def test_weights_stay_finite_or_infinite(value: float, expected: float) -> None:
    model = graph_of([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.array([value], np.float32)}, {"y": [1, 8]})
    assert initialiser(to_float16(model), "w") == np.float16(expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_tiny_weight_does_not_become_zero(sign: int) -> None:
    weights = {"tiny": np.array([sign * 1e-12], np.float32)}
    model = graph_of([helper.make_node("Add", ["x", "tiny"], ["y"])], weights, {"y": [1, 8]})
    assert np.sign(initialiser(to_float16(model), "tiny")) == sign


def test_a_constant_node_is_read_as_float16() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(1, np.float32)))
    model = graph_of([constant, helper.make_node("Add", ["x", "c"], ["y"])], {}, {"y": [1, 8]})
    (y,) = run(to_float16(model), x=np.zeros((1, 8), np.float16))
    assert y.dtype == np.float16


def test_a_subgraph_is_refused_by_its_node() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 8])],
    )
    node = helper.make_node("If", ["condition"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    model = graph_of([node], {"condition": np.array(True)}, {"y": [1, 8]})
    with pytest.raises(ValueError, match=r"node 'choice' \(If\) holds a subgraph"):
        to_float16(model)

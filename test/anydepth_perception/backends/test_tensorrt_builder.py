"""TensorRT's builder: engines in the precision of the graph, refusals that name the node. No GPU is needed."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import model_of
from test_backend_conformance import NAMED_IN_REFUSALS

from anydepth_perception.backends import BackendError
from anydepth_perception.backends.tensorrt_builder import PRECISIONS, BuildOptions, build_engine
from anydepth_perception.backends.tensorrt_library import float32_layers, import_tensorrt
from anydepth_perception.bundle.manifest import TensorSpec

pytestmark = pytest.mark.needs("tensorrt_rtx")

needs_tensorrt_rtx = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="the lock has TensorRT-RTX for x86-64 Linux only",
)


def graph_of(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: tuple[int | str, int] = (1, 512)
) -> onnx.ModelProto:
    """A float32 graph from `x` to `y` of the same shape."""
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("x", "y"))
    initialisers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def build(model: onnx.ModelProto, precision: str = "float32", compute_capability: str = "SM86") -> bytes:
    return build_engine(import_tensorrt(), model, BuildOptions(precision, compute_capability))[0]


@needs_tensorrt_rtx
def test_weights_of_a_float16_engine_take_half_the_room() -> None:
    weight = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    model = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    saved = len(build(model)) - len(build(model, "float16"))
    assert saved == pytest.approx(weight.nbytes / 2, rel=0.3)  # the casts at both ends take room too


@needs_tensorrt_rtx
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bad", NAMED_IN_REFUSALS, ids=lambda bad: bad.__name__)
def test_bad_graphs_are_refused_in_one_line(bad: Callable[[], onnx.ModelProto], precision: str) -> None:
    with pytest.raises(BackendError, match=f"cannot compile 'bad'.*{NAMED_IN_REFUSALS[bad]}") as refused:
        build(bad(), precision)
    assert "\n" not in str(refused.value)


@needs_tensorrt_rtx
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_convolution_between_pairs_of_int8_is_accepted(precision: str) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["kernel"], axis=0),
        helper.make_node("Conv", ["rounded", "kernel"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["y"]),
    ]
    weights = {
        "w": np.random.default_rng(0).integers(-127, 128, (16, 16, 3, 3), np.int8),
        "scale": np.array(0.05, np.float32),
        "zero": np.array(0, np.int8),
        "scales": np.full(16, 1e-3, np.float32),
        "zeros": np.zeros(16, np.int8),
    }
    x, y = TensorSpec("x", (1, 16, 32, 32), "float32"), TensorSpec("y", (1, 16, 30, 30), "float32")
    assert build(model_of(nodes, [x], [y], weights), precision)


@needs_tensorrt_rtx
def test_every_operator_that_is_not_known_is_named() -> None:
    nodes = [helper.make_node("Fold", ["x"], ["z"], name="one"), helper.make_node("Bend", ["z"], ["y"], name="two")]
    with pytest.raises(BackendError, match=r"node 'one' \(Fold\).*node 'two' \(Bend\)"):
        build(graph_of(nodes, {}))


@needs_tensorrt_rtx
def test_mixed_types_are_refused_by_the_name_of_the_node() -> None:
    add = helper.make_node("Add", ["x", "half"], ["y"], name="mixture")
    with pytest.raises(BackendError, match=r"node 'mixture' \(Add\): .*must have same input types"):
        build(graph_of([add], {"half": np.ones(512, np.float16)}))


@needs_tensorrt_rtx
def test_an_unknown_compute_capability_is_refused_with_those_accepted() -> None:
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], {})
    with pytest.raises(BackendError, match=r"compute capability 'SM87' is unknown to .*, accepted are .*SM86"):
        build(model, compute_capability="SM87")


@needs_tensorrt_rtx
def test_layers_that_a_release_without_strong_types_must_keep_in_float32() -> None:
    """Between the last product and the boxes, and what selects by value; not what leads to a feature map."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="matmul"),
        helper.make_node("Relu", ["product"], ["map"], name="relu"),
        helper.make_node("Sigmoid", ["product"], ["z"], name="sigmoid"),
        helper.make_node("Mul", ["z", "x"], ["boxes"], name="scale"),
        helper.make_node("ReduceMax", ["map"], ["best"], name="max", axes=[1]),
    ]
    shapes = {"map": (1, 512), "boxes": (1, 512), "best": (1, 1)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 512))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.ones((512, 512), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    library = import_tensorrt()
    builder = library.module.Builder(library.logger)
    network = library.create_network(builder)
    parser = library.module.OnnxParser(network, library.logger)
    assert parser.parse(model.SerializeToString())
    kept = {layer.name for layer in float32_layers(library.module, network, {"boxes"})}
    assert {"sigmoid", "scale", "max"} <= kept
    assert not kept & {"matmul", "relu"}


def test_a_machine_without_tensorrt_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"TensorRT is not usable: .*tensorrt_rtx.*; .*tensorrt"):
        import_tensorrt()

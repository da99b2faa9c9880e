"""TensorRT's builder: engines in the precision of the graph, refusals that name the node. No GPU is needed."""

from __future__ import annotations

import platform
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from anydepth_perception.backends import BackendError
from anydepth_perception.backends.tensorrt_builder import build_engine
from anydepth_perception.bundle.float16 import to_float16

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


@needs_tensorrt_rtx
def test_weights_of_a_float16_engine_take_half_the_room() -> None:
    weight = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    model = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    saved = len(build_engine(model, "SM86")) - len(build_engine(to_float16(model), "SM86"))
    assert saved == pytest.approx(weight.nbytes / 2, rel=0.1)


@needs_tensorrt_rtx
def test_every_operator_that_is_not_known_is_named() -> None:
    nodes = [helper.make_node("Fold", ["x"], ["z"], name="one"), helper.make_node("Bend", ["z"], ["y"], name="two")]
    with pytest.raises(BackendError, match=r"node 'one' \(Fold\).*node 'two' \(Bend\)"):
        build_engine(graph_of(nodes, {}), "SM86")


@needs_tensorrt_rtx
def test_mixed_types_are_refused_by_the_name_of_the_node() -> None:
    add = helper.make_node("Add", ["x", "half"], ["y"], name="mixture")
    with pytest.raises(BackendError, match=r"node 'mixture' \(Add\): .*must have same input types"):
        build_engine(graph_of([add], {"half": np.ones(512, np.float16)}), "SM86")


@needs_tensorrt_rtx
def test_a_graph_that_parses_but_cannot_be_built_is_refused_with_the_reason() -> None:
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], {}, ("batch", 512))
    with pytest.raises(BackendError, match=r"cannot build 'graph': .*no optimization profile"):
        build_engine(model, "SM86")


@needs_tensorrt_rtx
def test_an_unknown_compute_capability_is_refused_with_those_accepted() -> None:
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], {})
    with pytest.raises(BackendError, match=r"compute capability 'SM87' is unknown, accepted are .*SM86"):
        build_engine(model, "SM87")


def test_a_machine_without_tensorrt_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="neither tensorrt_rtx nor tensorrt can be imported"):
        build_engine(graph_of([helper.make_node("Relu", ["x"], ["y"])], {}))

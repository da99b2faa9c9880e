"""Float16 on a CPU: every stored tensor is rounded, sums are not, and what must stay float32 does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anydepth_perception.aisle import AisleScene
from anydepth_perception.backends import create_backend, run_once
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.execution.self_check import TOLERANCES
from training.evaluation.float16_emulation import emulate_float16, round_to_float16

SIZE = 64


def two_products(outputs: tuple[str, ...] = ("b",)) -> onnx.ModelProto:
    """`b = (x @ w) @ v`, both weights fixed; `outputs` are those of the graph."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=(SIZE, SIZE)).astype(np.float32) for name in ("w", "v")}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["b"])],
        "two_products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    x = (np.arange(SIZE, dtype=np.float32) / 8).reshape(1, SIZE)  # exact in float16
    return run_once(create_backend("onnxruntime", threads=1), model, {"x": x})


def rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def test_each_product_is_that_of_rounded_values_summed_in_float32() -> None:
    model = two_products()
    w, v = (rounded(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    x = (np.arange(SIZE, dtype=np.float32) / 8).reshape(1, SIZE)
    expected = rounded(rounded(x @ w) @ v)
    found = run(round_to_float16(model))["b"]
    # The order of a sum in float32 may move a value across the border between two float16 numbers.
    assert (found == expected).mean() > 0.9
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert not np.array_equal(found, rounded((x @ w) @ v)), "the tensor in between was not rounded"


def test_every_output_is_a_float16_number() -> None:
    found = run(round_to_float16(two_products(("a", "b"))))
    assert all(np.array_equal(value, rounded(value)) for value in found.values())




def test_what_float16_cannot_hold_overflows() -> None:
    model = two_products()
    big = np.full((SIZE, SIZE), 60000, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(big, "w"))
    assert not np.isfinite(run(round_to_float16(model))["b"]).any()


def test_a_bundle_becomes_one_that_differs_a_little(tmp_path: Path) -> None:
    bundle = Bundle.load(find_bundle("aisle-yolo-t"))
    emulated = emulate_float16(bundle, tmp_path / "float16.anydepth")
    image = AisleScene(0, bundle.manifest.input.width, bundle.manifest.input.height).render(1.0).image[None]
    backend = create_backend("onnxruntime")
    exact, found = (run_once(backend, one.compose(one.base), {"images": image}) for one in (bundle, emulated))
    difference = float(np.abs(found["logits"] - exact["logits"]).max())
    assert 1e-4 < difference < TOLERANCES["float16"]

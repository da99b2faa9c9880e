"""What every backend owes to its callers, held against TensorRT on this GPU."""

from __future__ import annotations

import numpy as np
import pytest
import test_backend_conformance as conformance
from onnx import TensorProto, helper
from small_graphs import model_of

from anydepth_perception.backends import Backend, create_backend, run_once
from anydepth_perception.bundle.manifest import TensorSpec

NOT_HERE = (
    "test_the_backend_says_what_it_is",  # it has CPU threads
    "test_negative_threads_are_refused",
    "test_every_type_of_tensor_passes",  # TensorRT moves no uint8, and has int64 only from 10 on
)
globals().update(
    {name: test for name, test in vars(conformance).items() if name.startswith("test_") and name not in NOT_HERE}
)


@pytest.fixture(scope="module")
def backend() -> Backend:
    return create_backend("tensorrt", precision="float32")


@pytest.mark.parametrize("dtype", ["int32", "float16", "float32", "bool"])
def test_types_between_engines_pass(backend: Backend, dtype: str) -> None:
    source, target = TensorSpec("source", (3, 5), dtype), TensorSpec("target", (5, 3), dtype)
    model = model_of([helper.make_node("Transpose", ["source"], ["target"])], [source], [target])
    value = (np.arange(15).reshape(3, 5) % 7).astype(dtype)
    np.testing.assert_array_equal(run_once(backend, model, {"source": value})["target"], value.T)


def test_images_pass(backend: Backend) -> None:
    source, target = TensorSpec("source", (3, 5), "uint8"), TensorSpec("target", (3, 5), "float32")
    model = model_of([helper.make_node("Cast", ["source"], ["target"], to=TensorProto.FLOAT)], [source], [target])
    value = np.arange(241, 256, dtype=np.uint8).reshape(3, 5)
    np.testing.assert_array_equal(run_once(backend, model, {"source": value})["target"], value.astype(np.float32))


def test_the_backend_says_what_it_is(backend: Backend) -> None:
    assert (backend.name, backend.precision, backend.threads) == ("tensorrt", "float32", 0)
    assert backend.device.startswith("SM") and backend.version[0].isdigit()

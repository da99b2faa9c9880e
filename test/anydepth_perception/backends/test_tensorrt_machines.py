"""What the TensorRT backend says of machines on which it cannot work, or no longer: one line each, and what to do."""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable

import pytest
import simulated_cuda
import test_backend_conformance as conformance
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import Install
from small_graphs import IMAGES, sample_inputs

from anydepth_perception.backends import BackendError, Placement
from anydepth_perception.backends import cuda as cuda_module
from anydepth_perception.backends.tensorrt import TensorRtBackend, tensorrt_problem


def test_without_tensorrt_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, driver: SimulatedCuda) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    problem = tensorrt_problem()
    assert problem is not None and problem.startswith("TensorRT is not usable: ")
    assert "\n" not in problem


def test_without_a_driver_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, trt10: types.ModuleType) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(cuda_module.ctypes, "CDLL", missing)
    assert tensorrt_problem() == (
        "there is no NVIDIA driver on this machine: libcuda.so.1: cannot open shared object file: "
        "No such file or directory"
    )


def test_without_a_driver_tensorrt_is_not_even_loaded(
    monkeypatch: pytest.MonkeyPatch, driver: SimulatedCuda
) -> None:
    """It takes a second, which the node's start does not have."""
    driver.failing["cuInit"] = simulated_cuda.NO_DEVICE
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "cuInit failed" in str(tensorrt_problem())


def test_without_a_visible_gpu_the_reason_says_where_to_look(trt10: types.ModuleType, driver: SimulatedCuda) -> None:
    driver.failing["cuInit"] = simulated_cuda.NO_DEVICE
    problem = str(tensorrt_problem())
    assert "cuInit failed: CUDA_ERROR_NO_DEVICE" in problem and "CUDA_VISIBLE_DEVICES" in problem


def test_an_old_driver_is_named(monkeypatch: pytest.MonkeyPatch, trt10: types.ModuleType) -> None:
    monkeypatch.setattr(cuda_module.ctypes, "CDLL", lambda name: types.SimpleNamespace())
    assert "driver is too old, it lacks cuInit; CUDA 11.4 or newer is needed" in str(tensorrt_problem())


def test_an_old_tensorrt_is_named_with_what_is_needed(install: Install) -> None:
    install("tensorrt", "8.5.2.2")
    with pytest.raises(BackendError, match=r"TensorRT 8.5.2.2 is too old, 8.6 or newer is needed$"):
        TensorRtBackend()


def test_a_gpu_that_tensorrt_rtx_cannot_build_for_is_named_with_those_it_can(
    install: Install, driver: SimulatedCuda
) -> None:
    install("tensorrt_rtx", "1.7.1.116")
    driver.capability = (9, 0)
    assert "'SM90' is unknown to TensorRT-RTX 1.7.1.116, accepted are SM86, SM89" in str(tensorrt_problem())


def test_a_runtime_that_does_not_start_says_why(trt10: types.ModuleType) -> None:
    def refuse(logger: object) -> None:
        logger.log("error", "CUDA initialization failure with error: 35\n")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt10.Runtime = refuse
    assert tensorrt_problem() == "TensorRT 10.3.0 does not start: CUDA initialization failure with error: 35"


def test_on_a_usable_machine_there_is_no_problem(trt: types.ModuleType) -> None:
    assert tensorrt_problem() is None


@pytest.mark.parametrize(
    ("call", "act"),
    [
        ("cuMemcpyHtoDAsync_v2", lambda backend, engine, buffers: buffers["images"].upload()),
        ("cuMemcpyDtoHAsync_v2", lambda backend, engine, buffers: buffers["total"].download()),
        ("cuGraphLaunch", lambda backend, engine, buffers: engine.run()),
        ("cuStreamSynchronize", lambda backend, engine, buffers: backend.synchronize()),
        ("cuEventElapsedTime", lambda backend, engine, buffers: engine.last_run_ms),
    ],
    ids=["upload", "download", "run", "synchronize", "time"],
)
def test_a_gpu_that_disappears_is_one_clear_line(
    tensorrt: TensorRtBackend, driver: SimulatedCuda, call: str, act: Callable[..., object]
) -> None:
    engine, buffers = conformance.bound_sample(tensorrt)
    conformance.run(tensorrt, engine, buffers, sample_inputs())
    driver.failing[call] = simulated_cuda.LAUNCH_FAILED
    with pytest.raises(BackendError) as failed:
        act(tensorrt, engine, buffers)
    assert str(failed.value) == (
        f"{call.removesuffix('_v2')} failed: CUDA_ERROR_LAUNCH_FAILED, unspecified launch failure; the GPU is lost to "
        "this process: restart it, and look for Xid or NVRM in the kernel's log"
    )


@pytest.mark.parametrize("call", ["cuMemAlloc_v2", "cuMemHostAlloc"])
def test_too_little_memory_is_told_with_what_is_free(
    tensorrt: TensorRtBackend, driver: SimulatedCuda, call: str
) -> None:
    before = len(driver.memory)
    driver.failing[call] = simulated_cuda.OUT_OF_MEMORY
    with pytest.raises(BackendError, match="CUDA_ERROR_OUT_OF_MEMORY, out of memory; 3 of 8 MiB are free") as failed:
        tensorrt.allocate([Placement(IMAGES)])
    del failed
    gc.collect()
    assert len(driver.memory) == before


def test_a_run_that_tensorrt_refuses_says_why(tensorrt: TensorRtBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = conformance.bound_sample(tensorrt)

    def refuse(stream: int) -> bool:
        tensorrt._library.logger.log("error", "no room for activations")
        return False

    monkeypatch.setattr(engine._context, "execute_async_v3", refuse)
    with pytest.raises(BackendError, match="failed to run 'sample': no room for activations"):
        engine.run()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"precision": "int8"}, "precision is 'int8', expected one of float32, float16"),
        ({"workspace_bytes": 0}, "workspace_bytes is 0, expected 1 or more, or None"),
    ],
)
def test_bad_arguments_are_refused(trt10: types.ModuleType, arguments: dict, reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        TensorRtBackend(**arguments)

"""The TensorRT backend's own logic, on a simulated driver and simulated releases of TensorRT: no GPU is needed.

What TensorRT itself does with our graphs is tested with TensorRT-RTX's real builder, and on a GPU by `make test-gpu`.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import simulated_cuda
import test_backend_conformance as conformance
from onnx import TensorProto, helper
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import simulate
from small_graphs import IMAGES, model_of, sample_inputs, sample_model, sample_results, unknown_operator, vector

from anydepth_perception.backends import Backend, BackendError, Engine, Placement, run_once
from anydepth_perception.backends import cuda as cuda_module
from anydepth_perception.backends.host_memory import allocate_on_host
from anydepth_perception.backends.tensorrt import TensorRtBackend, tensorrt_problem
from anydepth_perception.bundle import Bundle
from anydepth_perception.bundle.manifest import TensorSpec
from anydepth_perception.execution import StagedExecution, WholeExecution

RELEASES = {"8.6": ("tensorrt", "8.6.2"), "10": ("tensorrt", "10.3.0"), "RTX": ("tensorrt_rtx", "1.7.1.116")}

Install = Callable[..., types.ModuleType]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    driver = SimulatedCuda((8, 6))
    monkeypatch.setattr(cuda_module.ctypes, "CDLL", lambda name: driver)
    return driver


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, driver: SimulatedCuda) -> Install:
    """Puts a simulated release in the place of those that are installed."""

    def install_release(name: str, version: str) -> types.ModuleType:
        module = simulate(name, version, driver)
        for other in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(sys.modules, other, module if other == name else None)
        return module

    return install_release


@pytest.fixture(params=RELEASES)
def trt(request: pytest.FixtureRequest, install: Install) -> types.ModuleType:
    return install(*RELEASES[request.param])


@pytest.fixture
def trt10(install: Install) -> types.ModuleType:
    return install(*RELEASES["10"])


@pytest.fixture
def backend(trt: types.ModuleType) -> TensorRtBackend:
    return TensorRtBackend("float32")


NOT_HERE = (
    "test_the_backend_says_what_it_is",  # it has CPU threads
    "test_negative_threads_are_refused",
    "test_equal_backends_build_for_the_same_device_with_the_same_flags",  # the choice by name is tested elsewhere
    "test_running_keeps_no_memory",  # the simulated driver keeps a record of all calls
)
# Everything that other backends owe to their callers, with the `backend` above.
globals().update(
    {name: test for name, test in vars(conformance).items() if name.startswith("test_") and name not in NOT_HERE}
)


def weighted_model() -> onnx.ModelProto:
    """The boxes [1, 2] = x W + 1, a product and arithmetic behind it."""
    product = helper.make_node("MatMul", ["x", "w"], ["product"])
    nodes = [product, helper.make_node("Add", ["product", "one"], ["boxes"])]
    weights = {"w": np.full((4, 2), 0.5, np.float32), "one": np.ones(1, np.float32)}
    return model_of(nodes, [TensorSpec("x", (1, 4), "float32")], [TensorSpec("boxes", (1, 2), "float32")], weights)


def quantized_model(kind: type) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="narrow"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    weights = {"scale": np.array(0.5, np.float32), "zero": np.array(0, kind)}
    return model_of(nodes, [vector("x", 4)], [vector("y", 4)], weights)


def ready(backend: Backend, model: onnx.ModelProto | None = None) -> tuple[Engine, dict]:
    """An engine that has been bound and has run once."""
    engine = backend.compile(model or sample_model())
    buffers = conformance.buffers_for(backend, *engine.inputs, *engine.outputs)
    engine.bind(buffers)
    conformance.run(backend, engine, buffers, sample_inputs())
    return engine, buffers


# Differences between releases


def test_the_backend_names_library_device_and_what_changes_engines(install: Install) -> None:
    seen = {}
    for release, (name, version) in RELEASES.items():
        install(name, version)
        backend = TensorRtBackend("float16", 1 << 30)
        seen[release] = (backend.version, backend.flags["typing"])
        assert (backend.name, backend.precision, backend.threads, backend.device) == ("tensorrt", "float16", 0, "SM86")
        assert backend.flags["workspace_bytes"] == str(1 << 30)
    assert seen == {"8.6": ("8.6.2", "weak"), "10": ("10.3.0", "strong"), "RTX": ("1.7.1.116 RTX", "strong")}


def test_networks_are_created_with_the_flags_that_the_release_has(install: Install) -> None:
    expected = {"8.6": {"EXPLICIT_BATCH"}, "10": {"EXPLICIT_BATCH", "STRONGLY_TYPED"}, "RTX": {"STRONGLY_TYPED"}}
    for release, arguments in RELEASES.items():
        trt = install(*arguments)
        TensorRtBackend().build(sample_model())
        assert trt.journal.network_flags == expected[release]


def test_float16_is_written_into_the_graph_or_asked_for_by_flag(install: Install) -> None:
    halves = {}
    for release, arguments in RELEASES.items():
        trt = install(*arguments)
        TensorRtBackend("float16").build(weighted_model())
        (graph,) = trt.journal.graphs
        halves[release] = any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.graph.initializer)
        assert ("FP16" in trt.journal.set_flags) is (release == "8.6")
        assert ("OBEY_PRECISION_CONSTRAINTS" in trt.journal.set_flags) is (release == "8.6")
    assert halves == {"8.6": False, "10": True, "RTX": True}


def test_inputs_and_outputs_stay_float32_in_float16_engines(trt: types.ModuleType) -> None:
    engine = TensorRtBackend("float16").compile(weighted_model())
    assert {spec.dtype for spec in (*engine.inputs, *engine.outputs)} == {"float32"}


def test_float32_engines_do_not_round_to_tf32(trt: types.ModuleType) -> None:
    TensorRtBackend("float32").build(sample_model())
    assert (trt.journal.cleared_flags, trt.journal.set_flags) == (["TF32"], [])


def test_int8_is_allowed_by_flag_only_where_types_are_not_strong(install: Install) -> None:
    for release, arguments in RELEASES.items():
        trt = install(*arguments)
        TensorRtBackend("float32").build(quantized_model(np.int8))
        assert ("INT8" in trt.journal.set_flags) is (release == "8.6")


def test_a_bundle_quantised_for_cpus_is_refused_with_what_to_do(trt: types.ModuleType) -> None:
    with pytest.raises(BackendError, match=r"node 'narrow' \(QuantizeLinear\) quantises to uint8.*--for tensorrt"):
        TensorRtBackend().build(quantized_model(np.uint8))


def test_the_workspace_limit_is_passed_on(trt: types.ModuleType) -> None:
    TensorRtBackend(workspace_bytes=123456789).build(sample_model())
    assert trt.journal.workspace_bytes == 123456789


def test_only_tensorrt_rtx_is_told_the_gpu(install: Install) -> None:
    for release, arguments in RELEASES.items():
        trt = install(*arguments)
        TensorRtBackend().build(sample_model())
        assert trt.journal.compute_capability == ("SM86" if release == "RTX" else None)


def test_what_the_parser_refuses_is_named_in_every_release(trt: types.ModuleType) -> None:
    model = unknown_operator()
    model.graph.node[0].name = "the one"
    with pytest.raises(BackendError, match=r"node 'the one' \(NoSuchOperator\): no importer, for it"):
        TensorRtBackend("float32").build(model)


def test_an_engine_of_another_release_is_refused(install: Install) -> None:
    install("tensorrt", "10.3.0")
    engine = TensorRtBackend().build(sample_model())
    install("tensorrt", "10.4.0")
    with pytest.raises(BackendError, match="cannot load 'sample': the engine was built by another version"):
        TensorRtBackend().load(engine, "sample")


# Caches of the library


def test_measurements_of_earlier_builds_are_used_and_kept(trt10: types.ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "timings"
    backend = TensorRtBackend(timing_cache=path)
    for _ in range(2):
        backend.build(sample_model())
    TensorRtBackend(timing_cache=path).build(sample_model())
    assert trt10.journal.timing_caches == [b"", b".", b".."]


def test_tensorrt_rtx_keeps_compiled_kernels_instead(install: Install, tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    trt = install(*RELEASES["RTX"])
    ready(TensorRtBackend("float32", timing_cache=path))
    ready(TensorRtBackend("float32", timing_cache=path))
    (found,) = trt.journal.runtime_caches
    assert (found.startswith(b"kernel"), trt.journal.timing_caches) == (True, [])


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_cache_is_taken_for_empty(trt10: types.ModuleType, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "timings"
    TensorRtBackend(timing_cache=path).build(sample_model())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"flipped": bytes(data), "cut": path.read_bytes()[:20], "empty": b""}[damage])
    TensorRtBackend(timing_cache=path).build(sample_model())
    assert trt10.journal.timing_caches[-1] == b""


def test_a_cache_of_another_release_is_taken_for_empty(install: Install, tmp_path: Path) -> None:
    install("tensorrt", "10.3.0")
    TensorRtBackend(timing_cache=tmp_path / "timings").build(sample_model())
    trt = install("tensorrt", "10.4.0")
    TensorRtBackend(timing_cache=tmp_path / "timings").build(sample_model())
    assert trt.journal.timing_caches == [b""]


def test_a_cache_that_cannot_be_written_is_logged_and_the_engine_built(
    trt10: types.ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    backend = TensorRtBackend(timing_cache=tmp_path / "file" / "timings")
    assert backend.build(sample_model())
    assert "cannot be written" in caplog.text and str(tmp_path / "file" / "timings") in caplog.text


# CUDA graphs


def test_after_its_first_run_an_engine_is_launched_as_a_graph(backend: Backend, trt: types.ModuleType) -> None:
    engine, buffers = ready(backend)
    assert (trt.journal.plain_runs, engine.runs_as_graph) == (1, True)
    inputs = sample_inputs(5)
    conformance.run(backend, engine, buffers, inputs)
    assert trt.journal.plain_runs == 1
    conformance.check(buffers, sample_results(inputs))


def test_capturing_follows_the_first_run_and_stands_between_no_other_calls(
    backend: Backend, driver: SimulatedCuda
) -> None:
    ready(backend)
    begin, end = (driver.calls.index(name) for name in ("cuStreamBeginCapture_v2", "cuStreamEndCapture"))
    assert "cuEventRecord" in driver.calls[:begin]
    assert driver.calls[begin:end] == ["cuStreamBeginCapture_v2"]  # an engine's work makes no calls here


def test_a_warm_engine_is_captured_again_when_it_is_bound(backend: Backend, trt: types.ModuleType) -> None:
    """So that the first frame after a warm-up on other memory is as fast as any."""
    engine, _ = ready(backend)
    buffers = conformance.buffers_for(backend, *engine.inputs, *engine.outputs)
    engine.bind(buffers)
    conformance.run(backend, engine, buffers, sample_inputs(1))
    assert trt.journal.plain_runs == 1
    conformance.check(buffers, sample_results(sample_inputs(1)))


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_without_graphs_engines_run_all_the_same_and_the_log_says_so_once(
    trt10: types.ModuleType, driver: SimulatedCuda, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    driver.failing[call] = simulated_cuda.CAPTURE_UNSUPPORTED
    if call == "cuStreamEndCapture":  # the driver leaves the capture even so
        original = driver.cuStreamEndCapture
        driver._functions[call] = lambda *arguments: setattr(driver, "capturing", None) or original(*arguments)
    backend = TensorRtBackend("float32")
    engine, buffers = ready(backend)
    for seed in range(3):
        conformance.run(backend, engine, buffers, sample_inputs(seed))
        conformance.check(buffers, sample_results(sample_inputs(seed)))
    engine.bind(buffers)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "'sample' runs without a CUDA graph" in record.getMessage()


def test_tensorrt_rtx_is_asked_whether_it_can_be_captured(install: Install, driver: SimulatedCuda) -> None:
    trt = install(*RELEASES["RTX"])
    trt.capturable = False
    engine, _ = ready(TensorRtBackend("float32"))
    assert (engine.runs_as_graph, "cuStreamBeginCapture_v2" in driver.calls) == (False, False)


# Memory


def test_a_block_and_its_mirror_are_freed_with_their_last_user(backend: Backend, driver: SimulatedCuda) -> None:
    before = len(driver.memory)
    buffers = backend.allocate([Placement(vector("a")), Placement(vector("b"), 4096)])
    assert len(driver.memory) == before + 2
    array = buffers["a"].host
    del buffers
    backend.synchronize()
    gc.collect()
    assert len(driver.memory) == before + 1  # the array still shows the host's side
    array[:] = 1
    del array
    gc.collect()
    assert len(driver.memory) == before


def test_graphs_and_events_are_freed_with_their_engine(backend: Backend, driver: SimulatedCuda) -> None:
    engine, buffers = ready(backend)
    gone = weakref.ref(engine)
    assert len(driver.graphs) == 1
    del engine, buffers
    gc.collect()
    assert (gone(), driver.graphs, driver.calls.count("cuEventDestroy_v2")) == (None, {}, 2)


def test_memory_of_another_backend_is_refused(backend: Backend) -> None:
    engine = backend.compile(sample_model())
    buffers = allocate_on_host([Placement(spec, 4096 * i) for i, spec in enumerate((*engine.inputs, *engine.outputs))])
    with pytest.raises(BackendError, match="memory of another backend for 'images'"):
        engine.bind(buffers)


def test_allocating_nothing_calls_nobody(backend: Backend, driver: SimulatedCuda) -> None:
    before = len(driver.calls)
    assert backend.allocate([]) == {}
    assert len(driver.calls) == before


# Threads


def test_engines_may_be_made_in_one_thread_and_run_in_another(backend: Backend) -> None:
    engine, buffers = ready(backend)
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            for seed in range(20):
                conformance.run(backend, engine, buffers, sample_inputs(seed))
                conformance.check(buffers, sample_results(sample_inputs(seed)))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    for _ in range(5):  # meanwhile the way of `ensure`
        ready(backend)
    thread.join(60)
    assert not thread.is_alive()
    assert failures == []


# Executions


@pytest.mark.parametrize("staged", [False, True], ids=["whole", "staged"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_bundle_runs_as_on_the_cpu(
    trt: types.ModuleType, tiny_bundle_path: Path, precision: str, staged: bool
) -> None:
    from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend

    bundle = Bundle.load(tiny_bundle_path)
    executions = [(StagedExecution if staged else WholeExecution)(bundle, each)
                  for each in (TensorRtBackend(precision), OnnxRuntimeBackend(1))]  # fmt: skip
    rng = np.random.default_rng(0)
    for config in (bundle.full, bundle.base, bundle.full):
        image = rng.integers(0, 256, executions[0].image.shape, np.uint8)
        found = []
        for execution in executions:
            execution.ensure(config)
            np.copyto(execution.image, image)
            execution.run(config)
            found.append((execution.boxes.copy(), execution.logits.copy()))
        for ours, expected in zip(*found, strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-4 if precision == "float32" else 2e-2, rtol=1e-2)


# What can be wrong with a machine


def test_without_tensorrt_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, driver: SimulatedCuda) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    problem = tensorrt_problem()
    assert problem is not None and problem.startswith("neither tensorrt_rtx nor tensorrt can be imported")
    assert "\n" not in problem


def test_without_a_driver_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, trt10: types.ModuleType) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(cuda_module.ctypes, "CDLL", missing)
    assert tensorrt_problem() == (
        "there is no NVIDIA driver on this machine: libcuda.so.1: cannot open shared object file: "
        "No such file or directory"
    )


def test_without_a_visible_gpu_the_reason_says_where_to_look(trt10: types.ModuleType, driver: SimulatedCuda) -> None:
    driver.failing["cuInit"] = simulated_cuda.NO_DEVICE
    problem = str(tensorrt_problem())
    assert "cuInit failed: CUDA_ERROR_NO_DEVICE" in problem and "CUDA_VISIBLE_DEVICES" in problem


def test_an_old_driver_is_named(monkeypatch: pytest.MonkeyPatch, trt10: types.ModuleType) -> None:
    monkeypatch.setattr(cuda_module.ctypes, "CDLL", lambda name: types.SimpleNamespace())
    assert "driver is too old, it lacks cuInit; CUDA 11.4 or newer is needed" in str(tensorrt_problem())


def test_an_old_tensorrt_is_named_with_what_is_needed(install: Install) -> None:
    install("tensorrt", "8.5.2.2")
    with pytest.raises(BackendError, match=r"^TensorRT 8.5.2.2 is too old, 8.6 or newer is needed$"):
        TensorRtBackend()


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
    backend: Backend, driver: SimulatedCuda, call: str, act: Callable[..., object]
) -> None:
    engine, buffers = ready(backend)
    driver.failing[call] = simulated_cuda.LAUNCH_FAILED
    with pytest.raises(BackendError) as failed:
        act(backend, engine, buffers)
    assert str(failed.value) == (
        f"{call.removesuffix('_v2')} failed: CUDA_ERROR_LAUNCH_FAILED, unspecified launch failure; the GPU is lost to "
        "this process: restart it, and look for Xid or NVRM in the kernel's log"
    )


@pytest.mark.parametrize("call", ["cuMemAlloc_v2", "cuMemHostAlloc"])
def test_too_little_memory_is_told_with_what_is_free(backend: Backend, driver: SimulatedCuda, call: str) -> None:
    before = len(driver.memory)
    driver.failing[call] = simulated_cuda.OUT_OF_MEMORY
    with pytest.raises(BackendError, match="CUDA_ERROR_OUT_OF_MEMORY, out of memory; 3 of 8 MiB are free") as failed:
        backend.allocate([Placement(IMAGES)])
    del failed
    gc.collect()
    assert len(driver.memory) == before


def test_a_run_that_tensorrt_refuses_says_why(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = backend.compile(sample_model())
    engine.bind(conformance.buffers_for(backend, *engine.inputs, *engine.outputs))

    def refuse(stream: int) -> bool:
        backend._library.logger.log("error", "no room for activations")
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


def test_the_result_of_a_float16_engine_is_near_that_of_float32(trt: types.ModuleType) -> None:
    x = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    found = run_once(TensorRtBackend("float16"), weighted_model(), {"x": x})["boxes"]
    np.testing.assert_allclose(found, x @ np.full((4, 2), 0.5) + 1, atol=1e-3)

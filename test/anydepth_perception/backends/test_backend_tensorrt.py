"""The TensorRT backend at work, on a simulated driver: what all backends owe, CUDA graphs, memory, threads.

What TensorRT itself does with our graphs is tested with TensorRT-RTX's real builder, and on a GPU by `make test-gpu`.
"""

from __future__ import annotations

import gc
import logging
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import simulated_cuda
import test_backend_conformance as conformance
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import RELEASES, Install
from small_graphs import sample_inputs, sample_results, vector

from anydepth_perception.backends import Backend, BackendError, Engine, Placement
from anydepth_perception.backends.host_memory import allocate_on_host
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
from anydepth_perception.backends.tensorrt import TensorRtBackend
from anydepth_perception.bundle import Bundle
from anydepth_perception.execution import Execution


@pytest.fixture
def backend(tensorrt: TensorRtBackend) -> TensorRtBackend:
    return tensorrt


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


def ready(backend: Backend) -> tuple[Engine, dict]:
    """An engine that has been bound and has run once."""
    engine, buffers = conformance.bound_sample(backend)
    conformance.run(backend, engine, buffers, sample_inputs())
    return engine, buffers


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


def test_nothing_is_collected_while_capturing(backend: Backend, driver: SimulatedCuda) -> None:
    """The driver ends a capture whose thread frees memory."""
    collecting: dict[str, bool] = {}
    driver.observe = lambda name: collecting.__setitem__(name, gc.isenabled())
    ready(backend)
    assert (collecting["cuStreamBeginCapture_v2"], collecting["cuStreamEndCapture"]) == (False, False)
    assert gc.isenabled()


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


def test_a_graph_of_other_memory_is_never_launched(backend: Backend, driver: SimulatedCuda) -> None:
    engine, _ = ready(backend)
    driver.failing["cuStreamBeginCapture_v2"] = simulated_cuda.CAPTURE_UNSUPPORTED
    buffers = conformance.buffers_for(backend, *engine.inputs, *engine.outputs)
    engine.bind(buffers)
    conformance.run(backend, engine, buffers, sample_inputs(1))
    conformance.check(buffers, sample_results(sample_inputs(1)))


def test_binding_waits_for_runs_before_it_drops_their_graph(backend: Backend, driver: SimulatedCuda) -> None:
    engine, buffers = ready(backend)
    engine.run()
    driver.calls.clear()
    engine.bind(buffers)
    assert driver.calls.index("cuStreamSynchronize") < driver.calls.index("cuGraphExecDestroy")


def test_what_tensorrt_refuses_to_capture_runs_plainly(
    backend: Backend, driver: SimulatedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, buffers = conformance.bound_sample(backend)
    plainly = engine._context.execute_async_v3

    def run(stream: int) -> bool:
        return driver.capturing is None and plainly(stream)

    monkeypatch.setattr(engine._context, "execute_async_v3", run)
    for seed in range(2):
        conformance.run(backend, engine, buffers, sample_inputs(seed))
        conformance.check(buffers, sample_results(sample_inputs(seed)))
    assert not engine.runs_as_graph


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
    engine = backend.compile(conformance.sample_model())
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


USES = {
    "upload": lambda backend, engine, buffers: buffers["images"].upload(),
    "download": lambda backend, engine, buffers: buffers["total"].download(),
    "run": lambda backend, engine, buffers: engine.run(),
    "bind": lambda backend, engine, buffers: engine.bind(buffers),
    "synchronize": lambda backend, engine, buffers: backend.synchronize(),
    "time": lambda backend, engine, buffers: engine.last_run_ms,
    "allocate": lambda backend, engine, buffers: backend.allocate([Placement(vector("a"))]),
    "compile": lambda backend, engine, buffers: backend.compile(conformance.sample_model()),
}


@pytest.mark.parametrize("use", USES)
def test_any_thread_may_use_the_backend(backend: Backend, use: str) -> None:
    """A thread that the driver has not seen has no context yet."""
    engine, buffers = ready(backend)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(USES[use], backend, engine, buffers).result(60)


@pytest.mark.parametrize("use", [use for use in USES if use != "compile"])
def test_threads_take_turns_at_the_stream(backend: TensorRtBackend, driver: SimulatedCuda, use: str) -> None:
    engine, buffers = ready(backend)
    driver.calls.clear()
    alone: list[bool] = []
    driver.observe = lambda name: alone.append(backend._device.lock._is_owned())
    result = USES[use](backend, engine, buffers)
    driver.observe = lambda name: None
    assert alone and all(alone)
    del result


# Executions


@pytest.mark.parametrize("staged", [False, True], ids=["whole", "staged"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_bundle_runs_as_on_the_cpu(
    trt: types.ModuleType, tiny_bundle_path: Path, precision: str, staged: bool
) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    executions = [Execution(bundle, each, bundle.space.default_points if staged else ())
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

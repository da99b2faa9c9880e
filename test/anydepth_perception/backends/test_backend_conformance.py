"""What every backend owes to its callers: the contract of `backends.base`, held against each one that is here."""

from __future__ import annotations

import gc
import time
import tracemalloc
import weakref
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graphs import (
    ADDEND,
    IMAGES,
    LARGEST,
    TOTAL,
    VECTOR,
    free_batch,
    model_of,
    sample_inputs,
    sample_model,
    sample_results,
    shapes_that_do_not_fit,
    shift_model,
    tensor_from_nowhere,
    type_of_no_buffer,
    types_that_do_not_fit,
    unknown_operator,
    vector,
)

from anydepth_perception.backends import Backend, BackendError, Buffer, Engine, Placement, create_backend, run_once
from anydepth_perception.bundle.manifest import TensorSpec

CPU_BACKENDS = ("onnxruntime", "openvino")
"""Those that need no accelerator; each is called like the module it needs."""

NAMED_IN_REFUSALS = {
    unknown_operator: "NoSuchOperator",
    shapes_that_do_not_fit: "MatMul",
    types_that_do_not_fit: "Add",
    tensor_from_nowhere: "missing",
    free_batch: "static shape",
    type_of_no_buffer: "a is .*(f64|double)",
}
"""Graphs that no backend takes, and what the refusal has to name."""


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return create_backend(request.param, threads=1)


def buffers_for(backend: Backend, *specs: TensorSpec) -> dict[str, Buffer]:
    """A block of memory of its own for each tensor."""
    buffers: dict[str, Buffer] = {}
    for spec in specs:
        buffers.update(backend.allocate([Placement(spec)]))
    return buffers


def run(backend: Backend, engine: Engine, buffers: Mapping[str, Buffer], inputs: Mapping[str, np.ndarray]) -> None:
    """Runs the engine on `inputs`, which go into the buffers, until the outputs are in theirs."""
    for name, value in inputs.items():
        np.copyto(buffers[name].host, value)
        buffers[name].upload()
    engine.run()
    for spec in engine.outputs:
        buffers[spec.name].download()
    backend.synchronize()


def bound_sample(backend: Backend) -> tuple[Engine, dict[str, Buffer]]:
    engine = backend.compile(sample_model())
    buffers = buffers_for(backend, *engine.inputs, *engine.outputs)
    engine.bind(buffers)
    return engine, buffers


def check(buffers: Mapping[str, Buffer], expected: Mapping[str, np.ndarray]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(buffers[name].host, value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_inputs_and_outputs_are_those_of_the_graph(backend: Backend) -> None:
    engine = backend.compile(sample_model())
    assert set(engine.inputs) == {IMAGES, ADDEND}
    assert set(engine.outputs) == {TOTAL, LARGEST}


def test_results_are_those_of_the_graph(backend: Backend) -> None:
    engine, buffers = bound_sample(backend)
    for seed in range(3):
        inputs = sample_inputs(seed)
        run(backend, engine, buffers, inputs)
        check(buffers, sample_results(inputs))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "bool"])
def test_every_type_of_tensor_passes(backend: Backend, dtype: str) -> None:
    source, target = TensorSpec("source", (3, 5), dtype), TensorSpec("target", (5, 3), dtype)
    model = model_of([helper.make_node("Transpose", ["source"], ["target"])], [source], [target])
    value = (np.arange(15).reshape(3, 5) % 7).astype(dtype)
    np.testing.assert_array_equal(run_once(backend, model, {"source": value})["target"], value.T)


def test_arithmetic_is_float32(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    image, kernel = (rng.normal(size=size).astype(np.float32) for size in ((1, 64, 24, 24), (64, 64, 3, 3)))
    node = helper.make_node("Conv", ["image", "kernel"], ["map"])
    source, target = TensorSpec("image", (1, 64, 24, 24), "float32"), TensorSpec("map", (1, 64, 22, 22), "float32")
    found = run_once(backend, model_of([node], [source], [target], {"kernel": kernel}), {"image": image})["map"]
    windows = np.lib.stride_tricks.sliding_window_view(image[0].astype(np.float64), (3, 3), axis=(1, 2))
    expected = np.einsum("cyxij,ocij->oyx", windows, kernel.astype(np.float64), optimize=True)
    assert np.abs(found[0] - expected).max() < 1e-5 * np.abs(expected).max()


def test_constants_that_the_graph_lists_as_inputs_need_no_buffer(backend: Backend) -> None:
    model = shift_model("before", "after", 2.5)
    model.graph.input.append(helper.make_tensor_value_info("amount", TensorProto.FLOAT, [1]))
    assert backend.compile(model).inputs == (vector("before"),)


def test_an_input_that_is_also_an_output_is_copied(backend: Backend) -> None:
    nodes = [helper.make_node("Identity", ["before"], ["same"]), helper.make_node("Neg", ["before"], ["negative"])]
    model = model_of(nodes, [vector("before")], [vector("same"), vector("negative")])
    value = np.arange(VECTOR[0], dtype=np.float32)
    found = run_once(backend, model, {"before": value})
    np.testing.assert_array_equal(found["same"], value)
    np.testing.assert_array_equal(found["negative"], -value)


def test_running_leaves_the_inputs_as_they_are(backend: Backend) -> None:
    """Segments that run later read them as well."""
    nodes = [helper.make_node("Relu", ["before"], ["positive"]), helper.make_node("Sqrt", ["positive"], ["after"])]
    engine = backend.compile(model_of(nodes, [vector("before")], [vector("after")]))
    buffers = buffers_for(backend, *engine.inputs, *engine.outputs)
    engine.bind(buffers)
    value = np.linspace(-3, 3, VECTOR[0], dtype=np.float32)
    run(backend, engine, buffers, {"before": value})
    buffers["before"].download()
    backend.synchronize()
    np.testing.assert_array_equal(buffers["before"].host, value)
    check(buffers, {"after": np.sqrt(np.maximum(value, 0))})


def test_host_arrays_stay_where_they_are(backend: Backend) -> None:
    engine, buffers = bound_sample(backend)
    before = {name: (buffer.host, buffer.host.ctypes.data) for name, buffer in buffers.items()}
    for seed in range(2):
        run(backend, engine, buffers, sample_inputs(seed))
    for name, buffer in buffers.items():
        assert (buffer.host is before[name][0], buffer.host.ctypes.data) == (True, before[name][1])


def test_buffers_that_the_engine_does_not_have_are_ignored(backend: Backend) -> None:
    engine, buffers = bound_sample(backend)
    inputs = sample_inputs()
    engine.bind({**buffers, **buffers_for(backend, TensorSpec("elsewhere", (2,), "int64"))})
    run(backend, engine, buffers, inputs)
    check(buffers, sample_results(inputs))


@pytest.mark.parametrize("spec", [IMAGES, LARGEST], ids=["input", "output"])
def test_missing_buffer_is_refused_by_name(backend: Backend, spec: TensorSpec) -> None:
    engine, buffers = bound_sample(backend)
    del buffers[spec.name]
    with pytest.raises(BackendError, match=f"'sample' needs a buffer for {spec.name} {spec.dtype}"):
        engine.bind(buffers)


@pytest.mark.parametrize(
    "wrong",
    [
        TensorSpec("images", (1, 7, 5, 3), "uint8"),
        TensorSpec("images", IMAGES.shape, "int32"),
        TensorSpec("largest", (1, 3), "float32"),
        TensorSpec("largest", LARGEST.shape, "float16"),
    ],
    ids=["input shape", "input type", "output shape", "output type"],
)
def test_unsuitable_buffer_is_refused_with_what_is_expected(backend: Backend, wrong: TensorSpec) -> None:
    engine, buffers = bound_sample(backend)
    expected = IMAGES if wrong.name == "images" else LARGEST
    buffers.update(buffers_for(backend, wrong))
    with pytest.raises(BackendError) as refused:
        engine.bind(buffers)
    assert f"given {wrong.dtype}{list(wrong.shape)} for '{wrong.name}'" in str(refused.value)
    assert f"{expected.dtype}{list(expected.shape)}" in str(refused.value)


def test_refused_buffers_leave_those_bound_before(backend: Backend) -> None:
    engine, buffers = bound_sample(backend)
    others = buffers_for(backend, IMAGES, ADDEND, TOTAL)
    with pytest.raises(BackendError):
        engine.bind(others)
    inputs = sample_inputs()
    run(backend, engine, buffers, inputs)
    check(buffers, sample_results(inputs))


def test_engine_without_buffers_does_not_run(backend: Backend) -> None:
    with pytest.raises(BackendError, match="'sample' has no buffers yet"):
        backend.compile(sample_model()).run()


def test_new_buffers_are_used_and_the_old_left_alone(backend: Backend) -> None:
    engine, first = bound_sample(backend)
    run(backend, engine, first, sample_inputs(0))
    second = buffers_for(backend, *engine.inputs, *engine.outputs)
    engine.bind(second)
    run(backend, engine, second, sample_inputs(1))
    check(second, sample_results(sample_inputs(1)))
    for spec in engine.outputs:
        first[spec.name].download()
    backend.synchronize()
    check(first, {**sample_inputs(0), **sample_results(sample_inputs(0))})


def test_engine_keeps_its_buffers_alive(backend: Backend) -> None:
    engine, buffers = bound_sample(backend)
    kept = [weakref.ref(buffer) for buffer in buffers.values()]
    del buffers
    gc.collect()
    assert all(reference() is not None for reference in kept)
    engine.run()
    backend.synchronize()


def test_engines_of_one_graph_do_not_touch_each_others_outputs(backend: Backend) -> None:
    first, first_buffers = bound_sample(backend)
    second, second_buffers = bound_sample(backend)
    run(backend, first, first_buffers, sample_inputs(1))
    run(backend, second, second_buffers, sample_inputs(2))
    for spec in first.outputs:
        first_buffers[spec.name].download()
    backend.synchronize()
    check(first_buffers, sample_results(sample_inputs(1)))
    check(second_buffers, sample_results(sample_inputs(2)))


def test_memory_is_zeroed_and_tensors_share_it_as_placed(backend: Backend) -> None:
    a, b, c = vector("a", 64), vector("b", 64), vector("c", 96)
    buffers = backend.allocate([Placement(a), Placement(b, 256), Placement(c)])
    assert all(not buffer.host.any() for buffer in buffers.values())
    buffers["a"].host[:], buffers["b"].host[:] = 1, 2
    np.testing.assert_array_equal(buffers["c"].host, [1] * 64 + [2] * 32)


def test_neighbours_in_memory_are_not_touched(backend: Backend) -> None:
    """Vector instructions must not write behind a tensor whose size they do not divide."""
    size, room = 37, 256
    model = shift_model("before", "after", 1.0, size)
    left, right = vector("left", room // 4), vector("right", room // 4)
    placements = [Placement(vector("before", size)), Placement(left, room), Placement(vector("after", size), 2 * room)]
    buffers = backend.allocate([*placements, Placement(right, 2 * room + size * 4)])
    engine = backend.compile(model)
    engine.bind(buffers)
    marks = {name: np.full(room // 4, 7, np.float32) for name in ("left", "right")}
    run(backend, engine, buffers, {**marks, "before": np.arange(size, dtype=np.float32)})
    for name in marks:
        buffers[name].download()
    backend.synchronize()
    check(buffers, {**marks, "after": np.arange(size) + 1.0})


def test_engines_share_memory_of_tensors_that_live_at_different_times(backend: Backend) -> None:
    """Tensors a -> b -> c, of which c takes the place of a."""
    placements = [Placement(vector("a")), Placement(vector("b"), 4096), Placement(vector("c"))]
    buffers = backend.allocate(placements)
    engines = [backend.compile(shift_model("a", "b", 1.0)), backend.compile(shift_model("b", "c", 10.0))]
    for engine in engines:
        engine.bind(buffers)
    for frame in range(3):
        value = np.arange(VECTOR[0], dtype=np.float32) * (frame + 1)
        np.copyto(buffers["a"].host, value)
        buffers["a"].upload()
        for engine in engines:
            engine.run()
        buffers["c"].download()
        backend.synchronize()
        check(buffers, {"c": value + 11})


def test_time_of_a_run_is_reported(backend: Backend) -> None:
    engine, buffers = bound_sample(backend)
    started = time.perf_counter()
    run(backend, engine, buffers, sample_inputs())
    assert 0 < engine.last_run_ms <= (time.perf_counter() - started) * 1e3


def test_running_keeps_no_memory(backend: Backend) -> None:
    engine, _ = bound_sample(backend)
    for _ in range(3):
        engine.run()

    def growth_bytes(runs: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(runs):
            engine.run()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        # Other threads of the test process allocate now and then; a run that keeps memory grows every time.
        assert min(growth_bytes(runs=50) for _ in range(5)) < 4096
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bad", NAMED_IN_REFUSALS, ids=lambda bad: bad.__name__)
def test_bad_graph_is_refused_in_one_line(backend: Backend, bad: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(BackendError, match=f"'bad'.*{NAMED_IN_REFUSALS[bad]}") as refused:
        backend.compile(bad())
    assert "\n" not in str(refused.value)


def test_a_model_without_content_is_refused_in_one_line(backend: Backend) -> None:
    with pytest.raises(BackendError, match="cannot compile ''") as refused:
        backend.compile(onnx.ModelProto())
    assert "\n" not in str(refused.value)


def test_a_built_engine_gives_the_same_numbers_however_often_it_is_loaded(backend: Backend) -> None:
    serialized = backend.build(sample_model())
    inputs = sample_inputs()
    for _ in range(2):
        engine = backend.load(bytes(serialized), "sample")
        buffers = buffers_for(backend, *engine.inputs, *engine.outputs)
        engine.bind(buffers)
        run(backend, engine, buffers, inputs)
        check(buffers, sample_results(inputs))


def test_an_engine_does_not_need_the_bytes_it_was_loaded_from(backend: Backend) -> None:
    weights = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
    product = TensorSpec("product", (300,), "float32")
    node = helper.make_node("MatMul", ["weights", "before"], ["product"])
    model = model_of([node], [vector("before")], [product], {"weights": weights})
    serialized = bytearray(backend.build(model))
    engine = backend.load(bytes(serialized), "sample")
    gc.collect()
    others = [bytes(len(serialized)) for _ in range(8)]  # take the place of the bytes, if they are free
    buffers = buffers_for(backend, *engine.inputs, *engine.outputs)
    engine.bind(buffers)
    value = np.linspace(-1, 1, VECTOR[0], dtype=np.float32)
    run(backend, engine, buffers, {"before": value})
    np.testing.assert_allclose(buffers["product"].host, weights @ value, atol=1e-3)
    assert len(others) == 8


def test_bytes_that_are_no_engine_are_refused_in_one_line(backend: Backend) -> None:
    with pytest.raises(BackendError, match="cannot load 'sample'") as refused:
        backend.load(b"no engine", "sample")
    assert "\n" not in str(refused.value)


def test_no_memory_is_told_in_one_line(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: onnx.ModelProto) -> bytes:
        raise MemoryError

    monkeypatch.setattr("onnx.ModelProto.SerializeToString", fail, raising=False)
    with pytest.raises(BackendError, match="no memory to compile 'sample'"):
        backend.build(sample_model())


def test_equal_backends_build_for_the_same_device_with_the_same_flags(backend: Backend) -> None:
    twin = create_backend(backend.name, threads=backend.threads)
    assert (twin.device, dict(twin.flags)) == (backend.device, dict(backend.flags))
    assert backend.device and "\n" not in backend.device


def test_the_backend_says_what_it_is(backend: Backend, request: pytest.FixtureRequest) -> None:
    assert backend.name in request.node.name
    assert (backend.precision, backend.threads) == ("float32", 1)
    assert backend.version[0].isdigit()
    assert create_backend(backend.name).threads >= 1


def test_negative_threads_are_refused(backend: Backend) -> None:
    with pytest.raises(BackendError, match="threads is -1"):
        create_backend(backend.name, threads=-1)

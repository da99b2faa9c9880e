"""The ONNX Runtime backend: same numbers as a plain session, weights once, the caller's buffers, clear failures."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from anydepth_perception.backends import BackendError, Buffer, Placement, create_backend, run_once
from anydepth_perception.backends.cpu import physical_core_count
from anydepth_perception.backends.host_memory import HostBuffer
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeEngine
from anydepth_perception.backends.onnxruntime_weights import SharedWeights
from anydepth_perception.bundle import Bundle, TensorSpec
from anydepth_perception.profile.load import process_memory_bytes


@pytest.fixture(scope="module")
def model(tiny_bundle_path: Path) -> onnx.ModelProto:
    bundle = Bundle.load(tiny_bundle_path)
    return bundle.compose(bundle.full)


def images(count: int, size: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, size, size, 3), np.uint8) for _ in range(count)]


def bound(engine: OnnxRuntimeEngine, backend: OnnxRuntimeBackend) -> dict[str, np.ndarray]:
    """Binds an engine to buffers of its own and returns them."""
    buffers: dict[str, Buffer] = {}
    for spec in (*engine.inputs, *engine.outputs):
        buffers.update(backend.allocate([Placement(spec)]))
    engine.bind(buffers)
    return {name: buffer.host for name, buffer in buffers.items()}


def compiled(model: onnx.ModelProto) -> tuple[OnnxRuntimeEngine, dict[str, np.ndarray]]:
    backend = OnnxRuntimeBackend(threads=1)
    engine = backend.compile(model)
    return engine, bound(engine, backend)


def test_results_equal_those_of_a_plain_session(model: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine, tensors = compiled(model)
    for image in images(3):
        np.copyto(tensors["images"], image)
        engine.run()
        expected = session.run(["boxes", "logits"], {"images": image})
        np.testing.assert_allclose(tensors["boxes"], expected[0], atol=1e-5)
        np.testing.assert_allclose(tensors["logits"], expected[1], atol=1e-5)


def test_inputs_and_outputs_of_any_graph_are_named(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    segment = bundle.manifest.segments["fpn_p4.full"]
    engine = OnnxRuntimeBackend(threads=1).compile(bundle.compose_segments([segment], ("fpn_p4",), "one"))
    assert (set(engine.inputs), set(engine.outputs)) == (set(segment.inputs), set(segment.outputs))


def test_time_of_the_last_run_is_reported(model: onnx.ModelProto) -> None:
    engine, _ = compiled(model)
    assert engine.last_run_ms == 0
    started = time.perf_counter()
    engine.run()
    assert 0 < engine.last_run_ms <= (time.perf_counter() - started) * 1e3


def test_equal_weights_are_in_memory_once(model: onnx.ModelProto) -> None:
    weights = SharedWeights()
    first, second = (weights.take_from(onnx.ModelProto.FromString(model.SerializeToString())) for _ in range(2))
    assert len(first) > 10
    assert all(first[name] is second[name] for name in first)


def test_weights_that_were_taken_are_no_longer_in_the_graph(model: onnx.ModelProto) -> None:
    hollow = onnx.ModelProto.FromString(model.SerializeToString())
    taken = sum(value.tensor_size_in_bytes() for value in SharedWeights().take_from(hollow).values())
    assert hollow.ByteSize() < model.ByteSize() - 0.9 * taken


def test_weights_end_with_the_last_engine_that_uses_them(model: onnx.ModelProto) -> None:
    backend = OnnxRuntimeBackend(threads=1)
    engine = backend.compile(model)
    assert backend.weight_bytes > 0
    del engine
    gc.collect()
    assert backend.weight_bytes == 0


def test_engine_outlives_its_backend(model: onnx.ModelProto) -> None:
    backend = OnnxRuntimeBackend(threads=1)
    engine = backend.compile(model)
    tensors = bound(engine, backend)
    np.copyto(tensors["images"], images(1)[0])
    engine.run()
    expected = tensors["logits"].copy()
    del backend
    gc.collect()
    engine.run()
    np.testing.assert_array_equal(tensors["logits"], expected)


def test_no_temporary_file_is_left(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compiled(model)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_for_temporary_files_is_a_backend_error(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(BackendError, match=r"temporary files cannot be written: .*missing"):
        compiled(model)


def graph_with_large_intermediate(rows: int) -> onnx.ModelProto:
    """A graph whose one intermediate tensor has `rows` x 192 floats."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "row_shape"], ["row"]),
        helper.make_node("Expand", ["row", "large_shape"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["largest"], axes=[0], keepdims=0),
        helper.make_node("Reshape", ["largest", "boxes_shape"], ["boxes"]),
        helper.make_node("Neg", ["boxes"], ["logits"]),
    ]
    shapes = {"row_shape": [1, 192], "large_shape": [rows, 192], "boxes_shape": [1, 48, 4]}
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 48, 4]) for name in ("boxes", "logits")],
        [helper.make_tensor(name, onnx.TensorProto.INT64, [len(shape)], shape) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_engines_share_the_memory_of_their_intermediate_tensors() -> None:
    intermediate_bytes = 64 << 20
    backend = OnnxRuntimeBackend(threads=1)
    graph = graph_with_large_intermediate(intermediate_bytes // (192 * 4))
    engines = [backend.compile(graph) for _ in range(6)]
    for engine in engines:
        bound(engine, backend)
    before = process_memory_bytes()
    for engine in engines:
        engine.run()
    after = process_memory_bytes()
    assert before is not None and after is not None
    assert after - before < 3 * intermediate_bytes


@pytest.mark.parametrize(
    "host",
    [
        np.zeros((1, 32, 64, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((1, 64, 128, 3), np.uint8)[:, :, ::2],
    ],
    ids=["shape", "type", "gaps"],
)
def test_unsuitable_buffer_is_refused(model: onnx.ModelProto, host: np.ndarray) -> None:
    backend = OnnxRuntimeBackend(threads=1)
    engine = backend.compile(model)
    with pytest.raises(BackendError, match=r"expected contiguous uint8\[1, 64, 64, 3\]"):
        engine.bind({"images": HostBuffer(TensorSpec("images", host.shape, str(host.dtype)), host)})


def test_missing_buffer_is_refused(model: onnx.ModelProto) -> None:
    backend = OnnxRuntimeBackend(threads=1)
    engine = backend.compile(model)
    buffers = backend.allocate([Placement(spec) for spec in engine.inputs])
    with pytest.raises(BackendError, match=r"needs a buffer for boxes .*, given are images"):
        engine.bind(buffers)


def test_running_without_buffers_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(BackendError, match="has no buffers yet"):
        OnnxRuntimeBackend(threads=1).compile(model).run()


def test_tensors_of_one_block_overlap_where_they_are_placed_so() -> None:
    first, second = TensorSpec("first", (2,), "float32"), TensorSpec("second", (2,), "float32")
    buffers = OnnxRuntimeBackend(threads=1).allocate([Placement(first, 0), Placement(second, 4)])
    buffers["first"].host[:] = (1, 2)
    assert buffers["second"].host.tolist() == [2, 0]


def test_graph_that_the_library_refuses_is_a_backend_error() -> None:
    value = helper.make_tensor_value_info("x", 1, [1])
    graph = helper.make_graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], "odd", [value], [
        helper.make_tensor_value_info("y", 1, [1])
    ])
    odd = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(BackendError, match=r"ONNX Runtime cannot compile 'odd': .*NoSuchOperator"):
        OnnxRuntimeBackend().compile(odd)


def test_graph_without_static_shapes_is_refused() -> None:
    values = [helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", values[:1], values[1:])
    one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(BackendError, match=r"graph 'one': x is tensor\(float\)\['n'\], not of static shape"):
        OnnxRuntimeBackend().compile(one)


def test_run_once_names_a_missing_input(model: onnx.ModelProto) -> None:
    with pytest.raises(BackendError, match=r"input images uint8\[1, 64, 64, 3\] is missing, given are none"):
        run_once(OnnxRuntimeBackend(threads=1), model, {})


def test_identity_is_reported() -> None:
    backend = OnnxRuntimeBackend(threads=3)
    assert (backend.name, backend.precision, backend.threads) == ("onnxruntime", "float32", 3)
    assert backend.version == onnxruntime.__version__
    assert OnnxRuntimeBackend().threads == physical_core_count()


@pytest.mark.parametrize("name", ["auto", "onnxruntime"])
def test_names_of_onnxruntime(name: str) -> None:
    assert create_backend(name, threads=1).name == "onnxruntime"


def test_negative_threads_are_refused() -> None:
    with pytest.raises(BackendError, match="threads is -1"):
        create_backend("onnxruntime", threads=-1)


def test_hyper_threads_of_a_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for cpu in range(4):
        topology = tmp_path / "devices/system/cpu" / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    assert physical_core_count(tmp_path) == 2


def test_quota_of_a_container_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "fs/cgroup").mkdir(parents=True)
    quota = tmp_path / "fs/cgroup/cpu.max"
    for text, cores in (("150000 100000", 2), ("max 100000", 8), ("10000 100000", 1), ("nonsense", 8)):
        quota.write_text(text)
        assert physical_core_count(tmp_path) == cores

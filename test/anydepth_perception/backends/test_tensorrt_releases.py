"""What the TensorRT backend asks of each release: TensorRT 8.6 and 10 and TensorRT-RTX, simulated."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
import test_backend_conformance as conformance
from onnx import TensorProto, helper
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import RELEASES, Install
from small_graphs import model_of, sample_inputs, sample_model, unknown_operator, vector

from anydepth_perception.backends import BackendError, run_once
from anydepth_perception.backends.tensorrt import TensorRtBackend
from anydepth_perception.bundle.manifest import TensorSpec


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


def test_tensorrt_takes_over_where_tensorrt_rtx_cannot_build_for_the_gpu(
    monkeypatch: pytest.MonkeyPatch, install: Install, driver: SimulatedCuda
) -> None:
    tensorrt = install(*RELEASES["10"])
    install(*RELEASES["RTX"])
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    driver.capability = (8, 7)
    assert TensorRtBackend().version == "10.3.0"


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


def test_the_result_of_a_float16_engine_is_near_that_of_float32(trt: types.ModuleType) -> None:
    x = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    found = run_once(TensorRtBackend("float16"), weighted_model(), {"x": x})["boxes"]
    np.testing.assert_allclose(found, x @ np.full((4, 2), 0.5) + 1, atol=1e-3)


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
    for _ in range(2):
        backend = TensorRtBackend("float32", timing_cache=path)
        engine, buffers = conformance.bound_sample(backend)
        conformance.run(backend, engine, buffers, sample_inputs())
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

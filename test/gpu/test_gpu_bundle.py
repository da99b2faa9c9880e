"""The shipped bundle on this GPU: the numbers of ONNX Runtime, self-check, engine cache, CUDA graphs, times, AP."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from spaces import STAGES

from anydepth_perception.backends import Backend, create_backend, run_once
from anydepth_perception.backends.base import Placement
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.backends.tensorrt import TensorRtBackend, TensorRtEngine
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.execution import Execution, SelfCheckError

TOLERANCE = {"float32": 1e-4, "float16": 5e-2}
AP_TOLERANCE = 0.001
"""0.1 of 100."""


def configurations(bundle: Bundle) -> list[DepthConfig]:
    picks = random.Random(0)
    mixtures = [DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES), bundle.full.exit) for _ in range(10)]
    return [bundle.full, bundle.base, *mixtures]


def raw_outputs(execution: Execution, config: DepthConfig, image: np.ndarray) -> np.ndarray:
    """Boxes and logits as rows [N, 4 + C]."""
    np.copyto(execution.image, image)
    execution.run(config)
    return np.concatenate([execution.boxes, execution.logits], axis=2)[0]


@pytest.fixture(scope="module")
def expected(shipped: Bundle, image: np.ndarray) -> dict[DepthConfig, np.ndarray]:
    """Raw outputs on the CPU."""
    backend = create_backend("onnxruntime")
    rows = {}
    for config in configurations(shipped):
        found = run_once(backend, shipped.compose(config), {"images": image})
        rows[config] = np.concatenate([found["boxes"], found["logits"]], axis=2)[0]
    return rows


@pytest.fixture(params=["float32", "float16"])
def backend(request: pytest.FixtureRequest) -> TensorRtBackend:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("staged", [False, True], ids=["whole", "staged"])
def test_every_depth_agrees_with_the_cpu(
    shipped: Bundle, image: np.ndarray, expected: dict, backend: TensorRtBackend, staged: bool
) -> None:
    execution = Execution(shipped, backend, shipped.space.default_points if staged else ())
    for config, rows in expected.items():
        execution.ensure(config)
        difference = np.abs(raw_outputs(execution, config, image) - rows).max()
        assert difference < TOLERANCE[backend.precision], str(config)


def bound(backend: Backend, model: onnx.ModelProto, image: np.ndarray) -> tuple[TensorRtEngine, dict]:
    engine = backend.compile(model)
    buffers: dict = {}
    for spec in (*engine.inputs, *engine.outputs):
        buffers.update(backend.allocate([Placement(spec)]))
    engine.bind(buffers)
    np.copyto(buffers["images"].host, image)
    return engine, buffers


def run(backend: Backend, engine: TensorRtEngine, buffers: dict) -> np.ndarray:
    buffers["images"].upload()
    engine.run()
    for spec in engine.outputs:
        buffers[spec.name].download()
    backend.synchronize()
    return np.concatenate([buffers["boxes"].host, buffers["logits"].host], axis=2).copy()


def test_a_cuda_graph_computes_what_plain_runs_do(shipped: Bundle, image: np.ndarray, backend: TensorRtBackend) -> None:
    engine, buffers = bound(backend, shipped.compose(shipped.full), image)
    plain = run(backend, engine, buffers)
    assert engine.runs_as_graph
    for _ in range(3):
        np.testing.assert_array_equal(run(backend, engine, buffers), plain)
    np.copyto(buffers["images"].host, 255 - image)
    assert not np.array_equal(run(backend, engine, buffers), plain)


def test_the_time_on_the_gpu_is_a_part_of_the_time_that_passes(
    shipped: Bundle, image: np.ndarray, backend: TensorRtBackend, record_property: Callable[[str, object], None]
) -> None:
    for config in (shipped.full, shipped.base):
        engine, buffers = bound(backend, shipped.compose(config), image)
        times = []
        for _ in range(20):
            started = time.perf_counter()
            run(backend, engine, buffers)
            wall_ms = (time.perf_counter() - started) * 1e3
            assert 0 < engine.last_run_ms < wall_ms
            times.append(engine.last_run_ms)
        record_property(f"{backend.precision} {config} ms", float(np.median(times)))
        print(f"{backend.version} {backend.device} {backend.precision} {config}: {np.median(times):.3f} ms")


class CountingBackend(TensorRtBackend):
    """Counts what it builds, and changes graphs first if it is told to."""

    builds = 0
    tampers = False

    def build(self, model: onnx.ModelProto) -> bytes:
        self.builds += 1
        if self.tampers:
            (weight, *_) = (tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.5, weight.name))
        return super().build(model)


def test_an_engine_that_computes_something_else_is_refused(shipped: Bundle) -> None:
    backend = CountingBackend()
    backend.tampers = True
    with pytest.raises(SelfCheckError):
        Execution(shipped, backend).ensure(shipped.full)


def test_engines_are_found_again(shipped: Bundle, image: np.ndarray, tmp_path: Path) -> None:
    found = []
    for builds in (1, 0):
        backend = CountingBackend()
        execution = Execution(shipped, backend, cache=EngineCache(tmp_path / "engines"))
        execution.ensure(shipped.full)
        assert backend.builds == builds
        found.append(raw_outputs(execution, shipped.full, image))
    np.testing.assert_array_equal(*found)


def test_a_depth_can_be_prepared_while_another_runs(
    shipped: Bundle, image: np.ndarray, float16: TensorRtBackend
) -> None:
    execution = Execution(shipped, float16)
    execution.ensure(shipped.base)
    first = raw_outputs(execution, shipped.base, image)
    preparing = threading.Thread(target=execution.ensure, args=(shipped.full,))
    preparing.start()
    while preparing.is_alive():
        np.testing.assert_array_equal(raw_outputs(execution, shipped.base, image), first)
    preparing.join()
    assert raw_outputs(execution, shipped.full, image).shape == first.shape


def test_the_ap_of_float16_is_that_of_float32(shipped: Bundle, float16: TensorRtBackend) -> None:
    pytest.importorskip("torch", reason="training/ evaluates with torch, which is not installed")
    from anydepth_perception.detection.postprocess import Postprocessor
    from anydepth_perception.detection.preprocess import Preprocessor
    from training.evaluate import detect_all
    from training.evaluation.coco import metrics_by_depth
    from training.evaluation.images import AisleImages
    from training.evaluation.network import BundleNetwork

    manifest = shipped.manifest
    configs = [shipped.full, shipped.base]
    images = AisleImages("test", 500)
    found = []
    for backend in (float16, create_backend("onnxruntime")):
        preprocess = Preprocessor(manifest.input.height, manifest.input.width, resize=manifest.input.resize)
        postprocess = Postprocessor(
            nms=manifest.postprocess.nms, iou_threshold=manifest.postprocess.iou_threshold, multi_label=True
        )
        results = detect_all(BundleNetwork(shipped, backend), configs, images, preprocess, postprocess)
        found.append(metrics_by_depth(results, images.class_names))
    ours, exact = found
    for config in map(str, configs):
        print(f"{config}: AP {ours[config]['AP']:.4f}, in float32 {exact[config]['AP']:.4f}")
        assert ours[config]["AP"] == pytest.approx(exact[config]["AP"], abs=AP_TOLERANCE)

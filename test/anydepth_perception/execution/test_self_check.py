"""The numerical self-check: engines that compute something else are refused by name and never kept, right ones pass."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from anydepth_perception.backends import Backend, create_backend
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
from anydepth_perception.bundle import Bundle, ReferenceRows, find_bundle, rewrite_bundle
from anydepth_perception.bundle.float16 import to_float16
from anydepth_perception.bundle.plain_run import (
    PlainRunError,
    precision_of,
    reference_by_onnxruntime,
    reference_configs,
)
from anydepth_perception.execution import (
    EXECUTIONS,
    STAGED,
    WHOLE,
    Checked,
    EngineReady,
    Execution,
    SelfCheckError,
    decision_points_of,
)
from anydepth_perception.execution import self_check as module
from anydepth_perception.execution.self_check import TOLERANCES, difference

Tamper = Callable[[onnx.ModelProto], onnx.ModelProto]


class Tampered(OnnxRuntimeBackend):
    """Builds engines of something else than it was given, as a library with a fault does."""

    def __init__(self, tamper: Tamper) -> None:
        super().__init__(threads=1)
        self._tamper = tamper

    def build(self, model: onnx.ModelProto) -> bytes:
        return super().build(self._tamper(onnx.ModelProto.FromString(model.SerializeToString())))


def scaled(segment: str) -> Tamper:
    """One convolution's weights of `segment` times 1.5."""

    def tamper(model: onnx.ModelProto) -> onnx.ModelProto:
        for tensor in model.graph.initializer:
            if tensor.name.startswith(f"{segment}/") and len(tensor.dims) == 4:
                value = numpy_helper.to_array(tensor) * np.float32(1.5)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
                return model
        return model

    return tamper


def not_a_number(model: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            value = np.full(tuple(tensor.dims), np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


def prepare(execution: str, bundle: Bundle, backend: Backend, cache: EngineCache | None = None) -> Execution:
    prepared = Execution(bundle, backend, decision_points_of(execution, bundle.space), cache=cache)
    prepared.ensure(bundle.full)
    return prepared


@pytest.fixture(scope="module")
def plain(tiny_bundle_path: Path) -> Bundle:
    """A bundle without references."""
    return Bundle.load(tiny_bundle_path)


@pytest.fixture(scope="module")
def referenced(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with references."""
    path = shutil.copytree(tiny_bundle_path, tmp_path_factory.mktemp("referenced") / "tiny.anydepth")
    bundle = Bundle.load(path)
    image = np.random.default_rng(1).integers(0, 256, bundle.input_spec().shape, np.uint8)
    return rewrite_bundle(bundle, reference=reference_by_onnxruntime(bundle, image))


@pytest.fixture(params=["with references", "without references"])
def bundle(request: pytest.FixtureRequest, plain: Bundle, referenced: Bundle) -> Bundle:
    return referenced if request.param == "with references" else plain


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("segment", ["stem", "p4.full", "pan_p5.full"])
def test_an_engine_with_a_wrong_weight_is_refused_by_name(bundle: Bundle, execution: str, segment: str) -> None:
    with pytest.raises(SelfCheckError) as refused:
        prepare(execution, bundle, Tampered(scaled(segment)))
    message = str(refused.value)
    for part in (str(bundle.path), "onnxruntime", "float32", "at most 0.001"):
        assert part in message
    assert re.search(r"for [EF]{4}\.[EF]{4} are wrong: .* differ from the reference by \d", message)
    assert "\n" not in message


def test_the_engine_of_another_rung_is_refused(bundle: Bundle) -> None:
    backend = Tampered(lambda _: bundle.compose(bundle.base))
    with pytest.raises(SelfCheckError, match=r"FFFF\.FFFF"):
        prepare(WHOLE, bundle, backend)


def test_swapped_engines_of_a_group_are_refused(bundle: Bundle) -> None:
    first, last = bundle.segments_for(bundle.base)[:3], bundle.segments_for(bundle.full)[:3]
    names = ["+".join(segment.name for segment in segments) for segments in (first, last)]
    built: list[str] = []

    def swap(model: onnx.ModelProto) -> onnx.ModelProto:
        built.append(model.graph.name)
        other = {names[0]: last, names[1]: first}.get(model.graph.name)
        return model if other is None else bundle.compose_segments(other, ("p3",), model.graph.name)

    with pytest.raises(SelfCheckError):
        prepare(STAGED, bundle, Tampered(swap))
    assert set(names) <= set(built)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_outputs_that_are_no_numbers_are_refused(bundle: Bundle, execution: str) -> None:
    with pytest.raises(SelfCheckError, match="differ from the reference by inf"):
        prepare(execution, bundle, Tampered(not_a_number))


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_refused_engine_is_not_kept(referenced: Bundle, execution: str, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    with pytest.raises(SelfCheckError):
        prepare(execution, referenced, Tampered(scaled("stem")), cache)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_engine_does_not_run(referenced: Bundle) -> None:
    whole = Execution(referenced, Tampered(scaled("p2.full")))
    whole.ensure(referenced.base)  # which has no part in p2.full
    with pytest.raises(SelfCheckError):
        whole.ensure(referenced.full)
    with pytest.raises(ValueError, match="has no engine"):
        whole.run(referenced.full)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_right_engines_of_every_backend_pass(bundle: Bundle, backend: str, execution: str) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    assert prepare(execution, bundle, create_backend(backend, threads=1)).groups


def test_the_shipped_bundles_engines_are_far_within_the_tolerance() -> None:
    shipped = Bundle.load(find_bundle("aisle-yolo-t"))
    steps: list[EngineReady | Checked] = []
    whole = Execution(shipped, create_backend("onnxruntime"), progress=steps.append)
    for config in (shipped.full, shipped.base):
        whole.ensure(config)
    checked = [step for step in steps if isinstance(step, Checked)]
    assert [step.config for step in checked] == [shipped.full, shipped.base]
    assert max(step.difference for step in checked) < 1e-4


def test_progress_tells_of_engines_and_checks(referenced: Bundle, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    backend = create_backend("onnxruntime", threads=1)
    cold: list[EngineReady | Checked] = []
    warm: list[EngineReady | Checked] = []
    for steps in (cold, warm):
        Execution(referenced, backend, referenced.space.default_points, cache=cache, progress=steps.append)
    engines = [step for step in cold if isinstance(step, EngineReady)]
    assert [step.done for step in engines] == list(range(1, engines[0].total + 1))
    assert not any(step.cached for step in engines)
    assert all(step.size_bytes > 0 for step in engines)
    assert len(cold) > len(engines)
    assert [(type(step), getattr(step, "cached", None)) for step in warm] == [(EngineReady, True)] * len(engines)


def test_references_cover_every_engine_of_staged_execution(
    referenced: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a configuration has no reference")

    monkeypatch.setattr(module, "run_plainly", refuse)
    prepare(STAGED, referenced, create_backend("onnxruntime", threads=1))
    assert {referenced.full, referenced.base} <= set(reference_configs(referenced))


def test_without_references_and_onnxruntime_the_engines_are_used_with_a_warning(
    plain: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> None:
        raise PlainRunError("onnxruntime cannot be imported")

    monkeypatch.setattr(module, "run_plainly", missing)
    assert prepare(WHOLE, plain, create_backend("onnxruntime", threads=1)).groups
    assert "FFFF.FFFF are not checked" in caplog.text


def rows_of(boxes: np.ndarray, logits: np.ndarray, indices: list[int]) -> ReferenceRows:
    return ReferenceRows(np.array(indices, np.int32), boxes[0][indices], logits[0][indices])


def test_rows_in_order_are_compared_one_by_one() -> None:
    rng = np.random.default_rng(0)
    boxes, logits = (rng.normal(size=(1, 20, width)).astype(np.float32) for width in (4, 3))
    rows = rows_of(boxes, logits, [2, 5, 19])
    assert difference(rows, boxes, logits, ordered=True) == 0
    logits[0, 19, 1] += 0.25
    assert difference(rows, boxes, logits, ordered=True) == pytest.approx(0.25, abs=1e-6)
    assert difference(rows, boxes, logits, ordered=True, precision="int8") == pytest.approx(0.25 / 21**0.5, abs=1e-6)
    assert difference(rows, boxes[:, ::-1], logits[:, ::-1], ordered=True) > 0.25


def test_rows_without_order_may_stand_anywhere() -> None:
    rng = np.random.default_rng(0)
    boxes, logits = (rng.normal(size=(1, 20, width)).astype(np.float32) for width in (4, 3))
    rows = rows_of(boxes, logits, list(range(20)))
    turned = rng.permutation(20)
    assert difference(rows, boxes[:, turned], logits[:, turned], ordered=False) == 0
    assert difference(rows, boxes, logits + 0.25, ordered=False) > 0.1


def test_one_query_that_was_chosen_otherwise_is_no_fault() -> None:
    rng = np.random.default_rng(0)
    boxes, logits = (rng.normal(size=(1, 20, width)).astype(np.float32) for width in (4, 3))
    rows = rows_of(boxes, logits, list(range(20)))
    other = logits.copy()
    other[0, 7] += 9
    assert difference(rows, boxes, other, ordered=False) == 0
    assert difference(rows, boxes, other, ordered=False, precision="int8") == 0


def test_the_coarsest_arithmetic_sets_the_tolerance(referenced: Bundle, tmp_path: Path) -> None:
    """A float16 bundle on a float32 backend may differ by as much as float16 rounds."""
    path = shutil.copytree(referenced.path, tmp_path / "half.anydepth")
    reference = referenced.read_reference()
    assert reference is not None
    half = rewrite_bundle(Bundle.load(path), reference=dataclasses.replace(reference, precision="float16"))
    steps: list[EngineReady | Checked] = []
    Execution(half, create_backend("onnxruntime", threads=1), progress=steps.append).ensure(half.full)
    assert [step.tolerance for step in steps if isinstance(step, Checked)] == [TOLERANCES["float16"]]


@pytest.mark.parametrize(
    ("change", "precision"),
    [
        (lambda model: model, "float32"),
        (lambda model: to_float16(model, ("boxes", "logits")), "float16"),
        (lambda model: model.graph.node.add(op_type="QuantizeLinear") and model, "int8"),
    ],
)
def test_the_arithmetic_of_a_graph_is_recognised(plain: Bundle, change: Tamper, precision: str) -> None:
    assert precision_of(change(plain.compose(plain.full))) == precision

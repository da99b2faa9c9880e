"""Loading what serving takes: a ladder, what is refused, and which backend takes over when one does not work."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from typing import ClassVar

import pytest

from anydepth_perception.backends import BackendError, BackendMissingError
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
from anydepth_perception.bundle import BundleError
from anydepth_perception.depth.space import DecisionPointError, DepthConfig, DepthConfigError
from anydepth_perception.detection.detector import Detector
from anydepth_perception.profile import ProfileError
from anydepth_perception.serving import model as loading
from anydepth_perception.serving.model import load_model, load_next_model
from anydepth_perception.serving.settings import Settings
from anydepth_perception.serving.thresholds import ThresholdError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, so that no profile of the user is read or written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def settings(tiny_bundle_path) -> Settings:
    return Settings(model=str(tiny_bundle_path))


class StandInBackend(OnnxRuntimeBackend):
    """Stands in for TensorRT: ONNX Runtime under its name, which fails at `fails_at`."""

    fails_at: ClassVar[str] = ""
    error: ClassVar[Exception] = BackendError("stand-in: refused")

    @property
    def name(self) -> str:
        return "tensorrt"

    def build(self, model):
        if self.fails_at == "build":
            raise self.error
        return super().build(model)

    def load(self, serialized, name):
        engine = super().load(serialized, name)
        if self.fails_at == "run":
            engine.run = self._fail
        return engine

    def _fail(self) -> None:
        raise self.error


@pytest.fixture
def tensorrt(monkeypatch):
    """Makes the stand-in what `create_backend("tensorrt")` returns, and sets how it fails."""
    create = loading.create_backend

    def create_backend(name, **options):
        if name != "tensorrt":
            return create(name, **options)
        if StandInBackend.fails_at == "creation":
            raise StandInBackend.error
        return StandInBackend()

    def failing(fails_at: str, error: Exception) -> None:
        monkeypatch.setattr(StandInBackend, "fails_at", fails_at)
        monkeypatch.setattr(StandInBackend, "error", error)

    monkeypatch.setattr(loading, "create_backend", create_backend)
    return failing


def test_model_of_a_tiny_bundle_is_loaded_with_a_ladder_and_progress(settings):
    told: list[str] = []
    model = load_model(settings, told.append)
    configs = {rung.config for rung in model.controller.ladder.rungs}
    # Base is not among the rungs where noise made it look no faster than full.
    assert model.bundle.full in configs and configs <= set(model.detector.configs)
    assert model.bundle.base in model.detector.configs
    assert len(model.detector.configs) >= 6
    assert any("engine EEEE.EEEE built in" in text for text in told)
    assert any("ladder of tiny" in text for text in told)


@pytest.mark.parametrize(("cache_dir", "origin"), [("", "read from the cache"), ("none", "built")])
def test_engines_of_a_second_start_come_out_of_the_cache_unless_it_is_off(settings, cache_dir, origin):
    load_model(settings, lambda text: None)
    told: list[str] = []
    load_model(settings.updated({"cache_dir": cache_dir}, configured=False), told.append)
    engines = [text for text in told if text.startswith("engine ")]
    assert engines and all(f" {origin} in " in text for text in engines)


def test_cache_that_cannot_be_used_is_a_fault_that_says_what_to_do(settings, tmp_path):
    (tmp_path / "file").write_text("no folder")
    change = {"cache_dir": str(tmp_path / "file"), "backend": "onnxruntime"}
    model = load_model(settings.updated(change, configured=False), lambda text: None)
    (fault,) = model.faults
    assert "Not a directory" in fault and "set cache_dir" in fault


def test_fixed_depth_of_the_start_is_compiled_before_the_first_frame(tiny_bundle_path):
    settings = Settings(model=str(tiny_bundle_path), depth="EFEF.EFEF")
    assert load_model(settings, lambda text: None).detector.is_ready(DepthConfig.parse("EFEF.EFEF"))


def test_staged_execution_decides_where_the_settings_say(tiny_bundle_path):
    settings = Settings(model=str(tiny_bundle_path), execution="staged", decision_points=("p4", "head"))
    model = load_model(settings, lambda text: None)
    assert [entries[0] for entries in model.detector.groups] == ["stem", "p4", "head"]
    model.controller.begin(1000.0)
    assert model.controller.may_change


@pytest.mark.parametrize(
    ("backend", "of_accelerator", "moved"),
    [("onnxruntime", False, {False, True}), ("onnxruntime", True, set()), ("tensorrt", False, {True}),
     ("tensorrt", True, {False})],
)
def test_a_cap_of_the_cpu_slows_engines_that_run_on_it(settings, backend, of_accelerator, moved):
    model = dataclasses.replace(load_model(settings, lambda text: None), backend_name=backend)
    before = model.controller.state
    model.announce_cap(of_accelerator, 0.7)
    model.controller.begin(None)
    after = model.controller.state
    hosts = {True} if after.host_slowdown > 1.9 * before.host_slowdown else set()
    engines = {False} if after.inference_slowdown > 1.9 * before.inference_slowdown else set()
    assert hosts | engines == moved


@pytest.mark.parametrize(("ratio", "groups"), [(1.02, 4), (1.2, 1)])
def test_auto_takes_staged_where_it_costs_little(tiny_bundle_path, monkeypatch, ratio, groups):
    detect = Detector.detect

    def timed(self, image, config, **options):
        result = detect(self, image, config, **options)
        return dataclasses.replace(result, inference_ms=10.0 * (ratio if len(self.groups) > 1 else 1.0))

    monkeypatch.setattr(Detector, "detect", timed)
    told: list[str] = []
    model = load_model(Settings(model=str(tiny_bundle_path), execution="auto"), told.append)
    assert len(model.detector.groups) == groups
    assert any(f"execution auto: staged takes {ratio:.2f} of the time of whole" in text for text in told)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "nowhere"}, BundleError, "nowhere"),
        ({"backend": "onnxruntime", "precision": "float16"}, BackendError, "float16 is TensorRT's"),
        ({"profile": "/nowhere/profile.json"}, ProfileError, "/nowhere/profile.json"),
        ({"depth": "FFFF.FFFF.d3"}, DepthConfigError, "no decoder"),
        ({"execution": "staged", "decision_points": ["p9"]}, DecisionPointError, "'p9' is not one of stem, p2"),
        ({"decision_points": ["p5"]}, ValueError, "execution whole has none"),
        ({"class_score_thresholds": ["dog:0.5"]}, ThresholdError, "'dog' is unknown, the bundle has person"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(settings, change, error, words):
    with pytest.raises(error, match=words):
        load_model(settings.updated(change, configured=False), lambda text: None)


@pytest.mark.parametrize("fails_at", ["creation", "build", "run"])
@pytest.mark.parametrize("error", [BackendError("stand-in: too old\nfor the bundle"), MemoryError("no memory")])
def test_auto_takes_the_next_backend_where_one_fails_and_says_why_once(settings, tensorrt, caplog, fails_at, error):
    tensorrt(fails_at, error)
    with caplog.at_level(logging.WARNING, "anydepth_perception"):
        model = load_model(settings, lambda text: None)
    assert model.backend.startswith("onnxruntime")
    (fallback,) = model.fallbacks
    reason = " ".join(str(error).split())
    assert (fallback.backend, fallback.is_fault) == ("tensorrt", True) and reason in fallback.reason
    (record,) = caplog.records
    assert "tensorrt is not used" in record.message and reason in record.message


def test_backend_whose_library_is_not_installed_is_told_of_without_a_warning(settings, tensorrt, caplog):
    tensorrt("creation", BackendMissingError("stand-in: not installed"))
    told: list[str] = []
    with caplog.at_level(logging.WARNING, "anydepth_perception"):
        model = load_model(settings, told.append)
    assert not caplog.records and any("not installed" in text for text in told)
    assert [fallback.is_fault for fallback in model.fallbacks] == [False]


@pytest.mark.parametrize("fails_at", ["creation", "build", "run"])
def test_backend_that_was_asked_for_by_name_has_no_substitute(settings, tensorrt, fails_at):
    tensorrt(fails_at, BackendError("stand-in: refused"))
    with pytest.raises(BackendError, match="stand-in: refused"):
        load_model(settings.updated({"backend": "tensorrt"}, configured=False), lambda text: None)


def test_other_faults_are_no_reason_for_another_backend(settings, tensorrt):
    tensorrt("", BackendError("never raised"))
    with pytest.raises(ProfileError):
        load_model(settings.updated({"profile": "/nowhere/p.json"}, configured=False), lambda text: None)


def test_when_no_backend_works_the_error_names_each_with_its_reason(settings, tensorrt, monkeypatch):
    def create_backend(name, **options):
        raise BackendError(f"stand-in {name} refused")

    monkeypatch.setattr(loading, "create_backend", create_backend)
    words = "no backend works: tensorrt: stand-in tensorrt refused; onnxruntime: stand-in onnxruntime refused"
    with pytest.raises(BackendError, match=words):
        load_model(settings, lambda text: None)


def test_next_model_is_on_the_next_backend_and_remembers_why(settings, tensorrt):
    tensorrt("", BackendError("never raised"))
    first = load_model(settings, lambda text: None)
    assert first.backend.startswith("tensorrt") and first.fallbacks == ()
    second = load_next_model(first, "the GPU is gone", settings, lambda text: None)
    assert second.backend.startswith("onnxruntime")
    assert [fallback.reason for fallback in second.fallbacks] == ["failed while serving: the GPU is gone"]
    with pytest.raises(BackendError, match=r"the GPU is gone.*; onnxruntime: failed while serving: out of memory"):
        load_next_model(second, "out of memory", settings, lambda text: None)


def test_profile_that_was_named_for_the_failing_backend_does_not_keep_the_next_one_out(settings, tensorrt):
    tensorrt("", BackendError("never raised"))
    first = load_model(settings, lambda text: None)
    settings = settings.updated({"profile": "/nowhere/of-tensorrt.json"}, configured=False)
    assert load_next_model(first, "the GPU is gone", settings, lambda text: None).backend.startswith("onnxruntime")


def test_backend_that_was_asked_for_by_name_has_no_next_one(settings, tensorrt):
    tensorrt("", BackendError("never raised"))
    settings = settings.updated({"backend": "tensorrt"}, configured=False)
    with pytest.raises(BackendError, match="the GPU is gone"):
        load_next_model(load_model(settings, lambda text: None), "the GPU is gone", settings, lambda text: None)


@pytest.mark.parametrize(("precision", "shown"), [("int8", "int8"), (None, "float32")])
def test_model_says_that_a_bundle_is_quantised(tiny_bundle_path, tmp_path, precision, shown):
    path = shutil.copytree(tiny_bundle_path, tmp_path / "copy.anydepth")
    manifest = json.loads((path / "manifest.json").read_text())
    if precision is not None:
        manifest["provenance"]["precision"] = precision
    (path / "manifest.json").write_text(json.dumps(manifest))
    model = load_model(Settings(model=str(path), backend="onnxruntime"), lambda text: None)
    assert model.backend.startswith("onnxruntime ") and model.backend.endswith(f" {shown}")

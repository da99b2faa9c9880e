"""Measuring a profile: configurations, single segments, and what a node does at its start."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, rewrite_bundle
from anydepth_perception.bundle.plain_run import reference_by_onnxruntime
from anydepth_perception.detection.detector import Detector
from anydepth_perception.profile import (
    Profile,
    StepTimer,
    default_path,
    load_or_measure,
    measure_profile,
)
from anydepth_perception.profile.machine import LoadState
from anydepth_perception.profile.step_estimates import estimate_steps


@pytest.fixture(scope="module")
def detector(tiny_bundle_path: Path) -> Detector:
    bundle = Bundle.load(tiny_bundle_path)
    return Detector(bundle, create_backend(threads=1), configs=[bundle.base, bundle.full])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def set_load(monkeypatch: pytest.MonkeyPatch, load: float | None) -> None:
    """Stands in for the load of other processes, on a machine whose times contradict each other at most a little."""
    monkeypatch.setattr("anydepth_perception.profile.measure.MOST_RESIDUAL", math.inf)
    monkeypatch.setattr(
        "anydepth_perception.profile.measure.LoadWatch.state", lambda watch: LoadState(others_cpu_load=load)
    )


def test_every_configuration_is_measured(detector: Detector) -> None:
    profile = measure_profile(detector, 3)
    assert tuple(times.config for times in profile.times) == detector.configs
    for times in (*(rung.inference for rung in profile.times), profile.preprocess, profile.postprocess):
        assert 0 < times.min_ms <= times.p50_ms <= times.p95_ms <= times.p99_ms
    assert all(len(rung.samples_ms) == 3 and min(rung.samples_ms) == rung.inference.min_ms for rung in profile.times)
    assert profile.rounds == 3
    assert profile.covers(detector)


def test_rungs_carry_the_accuracy_of_the_bundle(detector: Detector) -> None:
    profile = measure_profile(detector, 3)
    assert [rung.average_precision for rung in profile.rungs(detector.bundle)] == [0.4, 0.5]
    assert profile.ladder(detector.bundle).full.config == detector.bundle.full


def test_progress_is_told_round_by_round(detector: Detector) -> None:
    rounds: list[tuple[int, int]] = []
    measure_profile(detector, 3, progress=lambda done, total: rounds.append((done, total)))
    assert rounds == [(1, 3), (2, 3), (3, 3)]


def test_too_few_repeats_are_refused(detector: Detector) -> None:
    with pytest.raises(ValueError, match="repeats is 2"):
        measure_profile(detector, 2)


def test_rounds_end_with_the_time_but_not_before_the_third(detector: Detector) -> None:
    assert measure_profile(detector, 50, limit_s=0.0).rounds == 3


def test_staged_execution_has_a_time_for_each_group(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    staged = Detector(bundle, create_backend(threads=1), configs=[bundle.full], execution="staged")
    (times,) = measure_profile(staged, 3).times
    assert len(times.group_ms_p50) == len(staged.groups) == 4
    assert all(ms > 0 for ms in times.group_ms_p50)


def test_every_step_is_measured_by_itself(detector: Detector) -> None:
    bundle = detector.bundle
    profile = measure_profile(detector, 3, steps=StepTimer(bundle, detector.backend))
    assert profile.steps_measured
    assert tuple(profile.steps) == bundle.space.steps
    assert all(0 < times.min_ms <= times.p50_ms <= times.p95_ms <= times.p99_ms for times in profile.steps.values())


def test_steps_run_on_the_image(detector: Detector) -> None:
    bundle = detector.bundle
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    detector.detect(image, bundle.full)
    timer = StepTimer(bundle, detector.backend)
    timer.run(image)
    np.testing.assert_array_equal(timer._execution.image, detector._execution.image)
    np.testing.assert_allclose(timer._execution.boxes, detector._execution.boxes, atol=1e-4)


def test_preparing_steps_tells_how_many_are_done(detector: Detector) -> None:
    told: list[tuple[int, int]] = []
    StepTimer(detector.bundle, detector.backend, progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 18) for number in range(1, 19)]


def test_the_picture_is_that_of_the_references(tiny_bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(shutil.copytree(tiny_bundle_path, tmp_path / "tiny.anydepth"))
    image = np.random.default_rng(1).integers(0, 256, bundle.input_spec().shape, np.uint8)
    bundle = rewrite_bundle(bundle, reference=reference_by_onnxruntime(bundle, image))
    detector = Detector(bundle, create_backend(threads=1), configs=[bundle.base, bundle.full])
    _, height, width, _ = image.shape
    measure_profile(detector, 3, image_width=width, image_height=height)
    np.testing.assert_array_equal(detector._execution.image, image)


def test_steps_are_estimated_where_they_were_not_measured(detector: Detector) -> None:
    profile = measure_profile(detector, 3)
    assert not profile.steps_measured
    assert tuple(profile.steps) == detector.bundle.space.steps
    assert all(0 < times.min_ms <= times.p50_ms <= times.p95_ms <= times.p99_ms for times in profile.steps.values())


def test_estimated_steps_add_up_where_times_go_with_gflops(detector: Detector) -> None:
    bundle = detector.bundle
    rungs = [(config, 7.0 * bundle.gflops(config)) for config in list(bundle.space.all())[::50]]
    estimate = estimate_steps(bundle, rungs)
    for config, milliseconds in rungs:
        assert bundle.space.total(estimate, config) == pytest.approx(milliseconds)


def test_saved_profile_is_read(detector: Detector) -> None:
    profile = measure_profile(detector, 3)
    profile.save(default_path(detector))
    assert load_or_measure(detector, 3) == (profile, f"profile read from {default_path(detector)}")


def test_missing_profile_is_measured_and_not_saved_unasked(detector: Detector, cache: Path) -> None:
    profile, sentence = load_or_measure(detector, 3)
    assert profile.covers(detector)
    assert sentence.startswith("profile measured now in ")
    assert "not saved; " in sentence
    assert "no such profile" in sentence
    assert not cache.exists()


def test_profile_of_an_idle_machine_is_saved_if_asked(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    set_load(monkeypatch, 0.05)
    profile, sentence = load_or_measure(detector, 3, save=True)
    assert f"(CPU load of others 5 %, governor unknown), saved to {default_path(detector)}; " in sentence
    assert load_or_measure(detector, 3) == (profile, f"profile read from {default_path(detector)}")


@pytest.mark.parametrize("load", [0.2, 0.9, None])
def test_profile_of_a_busy_machine_is_not_saved(
    detector: Detector, cache: Path, monkeypatch: pytest.MonkeyPatch, load: float | None
) -> None:
    set_load(monkeypatch, load)
    _, sentence = load_or_measure(detector, 3, save=True)
    assert "not saved, as the machine was not idle; " in sentence
    assert not cache.exists()


def test_profile_whose_times_contradict_each_other_serves_but_is_not_saved(
    detector: Detector, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_load(monkeypatch, 0.0)
    monkeypatch.setattr("anydepth_perception.profile.measure.MOST_RESIDUAL", -1.0)
    profile, sentence = load_or_measure(detector, 3, save=True)
    assert profile.covers(detector)
    assert "not saved, as its times contradict each other by " in sentence
    assert not cache.exists()


def test_place_that_cannot_be_written_only_costs_the_next_start(
    detector: Detector, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_load(monkeypatch, 0.0)
    cache.write_text("a file where the folder should be")
    profile, sentence = load_or_measure(detector, 3, save=True)
    assert profile.covers(detector)
    assert "not saved: " in sentence
    assert "cannot be written" in sentence


@pytest.mark.parametrize("text", ['{"schema_version": 1, "rungs": {}}', "damaged", "{}"])
def test_old_or_damaged_profile_is_measured_again(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    set_load(monkeypatch, 0.0)
    path = default_path(detector)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    profile, sentence = load_or_measure(detector, 3, save=True)
    assert str(path) in sentence.split("; ", 1)[1]
    assert Profile.load(path, detector) == profile


def test_profile_without_the_configurations_is_measured_again_and_keeps_its_steps(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_load(monkeypatch, 0.0)
    saved = measure_profile(detector, 3, steps=StepTimer(detector.bundle, detector.backend))
    replace(saved, times=saved.times[:1]).save(default_path(detector))
    profile, sentence = load_or_measure(detector, 3, save=True)
    assert "lacks some of the configurations" in sentence
    assert profile.covers(detector)
    assert profile.steps == saved.steps
    assert profile.steps_measured


def test_files_beside_the_profile_are_left_alone(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    set_load(monkeypatch, 0.0)
    load_or_measure(detector, 3, save=True)
    path = default_path(detector)
    assert os.listdir(path.parent) == [path.name]
    assert json.loads(path.read_text())["schema_version"] == 4

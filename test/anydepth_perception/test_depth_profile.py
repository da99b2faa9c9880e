"""The profile: measured, kept in a file, and refused where it was measured on something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import make_tiny_bundle

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth import profile as profile_module
from anydepth_perception.depth.profile import Profile, ProfileError, default_path, load_or_measure, measure_profile
from anydepth_perception.detector import Detector


@pytest.fixture(scope="module")
def detector(tiny_bundle_path: Path) -> Detector:
    return make_detector(tiny_bundle_path)


@pytest.fixture(scope="module")
def profile(detector: Detector) -> Profile:
    return measure_profile(detector, 3)


def make_detector(path: Path, threads: int = 1) -> Detector:
    bundle = Bundle.load(path)
    return Detector(bundle, create_backend(threads=threads), configs=[bundle.base, bundle.full])


def test_every_configuration_is_measured(detector: Detector, profile: Profile) -> None:
    assert tuple(times.config for times in profile.times) == detector.configs
    assert all(0 < times.inference_ms_p50 <= times.inference_ms_p95 for times in profile.times)
    assert profile.host_ms == profile.preprocess_ms + profile.postprocess_ms > 0
    assert profile.covers(detector)


def test_rungs_carry_the_accuracy_of_the_bundle(detector: Detector, profile: Profile) -> None:
    assert [rung.average_precision for rung in profile.rungs(detector.bundle)] == [0.4, 0.5]
    assert profile.ladder(detector.bundle).full.config == detector.bundle.full


def test_progress_is_told_round_by_round(detector: Detector) -> None:
    rounds: list[tuple[int, int]] = []
    measure_profile(detector, 3, progress=lambda done, total: rounds.append((done, total)))
    assert rounds == [(1, 3), (2, 3), (3, 3)]


def test_too_few_repeats_are_refused(detector: Detector) -> None:
    with pytest.raises(ValueError, match="repeats is 2"):
        measure_profile(detector, 2)


def test_saved_profile_loads_again(detector: Detector, profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "profile.json"
    profile.save(path)
    assert Profile.load(path, detector) == profile
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"]


def test_profile_of_another_bundle_is_refused(profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "profile.json")
    other = make_detector(make_tiny_bundle(tmp_path / "tiny.anydepth", seed=9).path)
    with pytest.raises(ProfileError, match=r"profile\.json: measured with bundle_sha256 '.*', here it is"):
        Profile.load(tmp_path / "profile.json", other)


def test_profile_with_other_threads_is_refused(profile: Profile, tiny_bundle_path: Path, tmp_path: Path) -> None:
    profile.save(tmp_path / "profile.json")
    with pytest.raises(ProfileError, match="measured with threads '1', here it is '2'"):
        Profile.load(tmp_path / "profile.json", make_detector(tiny_bundle_path, threads=2))


def test_profile_of_another_machine_is_refused(
    detector: Detector, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile.save(tmp_path / "profile.json")
    monkeypatch.setattr(profile_module, "_cpu_model", lambda: "Another CPU")
    with pytest.raises(ProfileError, match=r"measured with cpu_model '.*', here it is 'Another CPU'"):
        Profile.load(tmp_path / "profile.json", detector)


def change(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update({key: value})


DAMAGES: list[Callable[[dict[str, Any]], object]] = [
    change("schema_version", 2),
    change("rungs", {"FFFX": {"p50_ms": 1.0, "p95_ms": 1.0}}),
    change("rungs", {"FFFF.FFFF": {"p50_ms": -1.0, "p95_ms": 1.0}}),
    change("rungs", {"FFFF.FFFF": {"p50_ms": "1", "p95_ms": 1.0}}),
    change("rungs", 3),
    change("preprocess_ms", float("nan")),
    change("fingerprint", None),
    lambda document: document.pop("rungs"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_profile_is_refused(
    detector: Detector, profile: Profile, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    path = tmp_path / "profile.json"
    profile.save(path)
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match=r"profile\.json: not a valid profile"):
        Profile.load(path, detector)


def test_truncated_and_missing_profiles_are_refused(detector: Detector, profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    with pytest.raises(ProfileError, match="no such profile"):
        Profile.load(path, detector)
    profile.save(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ProfileError, match="not a readable profile"):
        Profile.load(path, detector)


def test_profile_lies_in_the_users_cache(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = tmp_path / "anydepth_perception" / "profiles" / "tiny-onnxruntime-float32-1.json"
    assert default_path(detector) == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_path(detector).is_relative_to(Path.home() / ".cache")


def test_saved_profile_is_read_and_a_missing_one_is_measured(
    detector: Detector, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured, reason = load_or_measure(detector, 3)
    assert measured.covers(detector)
    assert "measured now" in reason
    assert "no such profile" in reason
    assert list(tmp_path.iterdir()) == []
    profile.save(default_path(detector))
    assert load_or_measure(detector, 3) == (profile, f"profile read from {default_path(detector)}")


def test_saved_profile_without_the_configurations_is_not_used(
    detector: Detector, tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = Bundle.load(tiny_bundle_path)
    fewer = Detector(bundle, create_backend(threads=1), configs=[bundle.full])
    measure_profile(fewer, 3).save(default_path(detector))
    profile, reason = load_or_measure(detector, 3)
    assert profile.covers(detector)
    assert "lacks some of the configurations" in reason


def test_place_that_cannot_be_written_is_reported(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(ProfileError, match=r"profile\.json: cannot be written"):
        profile.save(tmp_path / "file" / "profile.json")

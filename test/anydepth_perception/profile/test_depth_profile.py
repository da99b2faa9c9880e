"""The profile: measured, kept in a file, and refused where it was measured on something else."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import make_tiny_bundle, tiny_manifest, tiny_segments

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, write_bundle
from anydepth_perception.depth.space import DepthConfig, Step
from anydepth_perception.detection.detector import Detector
from anydepth_perception.profile import (
    MOST_RESIDUAL,
    Profile,
    ProfileError,
    RungTimes,
    Times,
    default_path,
    measure_profile,
)
from anydepth_perception.profile.machine import LoadState


@pytest.fixture(scope="module")
def detector(tiny_bundle_path: Path) -> Detector:
    return make_detector(tiny_bundle_path)


@pytest.fixture(scope="module")
def profile(detector: Detector) -> Profile:
    return measure_profile(detector, 3)


STEM = Step("stem", "only")


def make_detector(path: Path, threads: int = 1, execution: str = "whole") -> Detector:
    bundle = Bundle.load(path)
    backend = create_backend(threads=threads)
    return Detector(bundle, backend, configs=[bundle.base, bundle.full], execution=execution)


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
    monkeypatch.setattr("anydepth_perception.profile.identity.cpu_model", lambda: "Another CPU")
    with pytest.raises(ProfileError, match=r"measured with cpu_model '.*', here it is 'Another CPU'"):
        Profile.load(tmp_path / "profile.json", detector)


def test_profile_in_another_power_mode_is_refused(
    detector: Detector, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile.save(tmp_path / "profile.json")
    monkeypatch.setattr("anydepth_perception.profile.identity.power_mode", lambda: "7W (nvpmodel 1)")
    with pytest.raises(ProfileError, match=r"measured with power_mode '.*', here it is '7W \(nvpmodel 1\)'"):
        Profile.load(tmp_path / "profile.json", detector)


def test_profile_of_another_execution_is_refused(profile: Profile, tiny_bundle_path: Path, tmp_path: Path) -> None:
    profile.save(tmp_path / "profile.json")
    with pytest.raises(ProfileError, match="execution 'whole', here it is 'staged before p4, fpn_p4, pan_p4"):
        Profile.load(tmp_path / "profile.json", make_detector(tiny_bundle_path, execution="staged"))


def test_profile_of_the_int8_bundle_is_refused_by_its_precision(profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "profile.json")
    manifest = {**tiny_manifest(), "provenance": {"precision": "int8"}}
    write_bundle(tmp_path / "tiny.anydepth", manifest, tiny_segments())
    with pytest.raises(ProfileError, match="measured with bundle_precision 'float32', here it is 'int8'"):
        Profile.load(tmp_path / "profile.json", make_detector(tmp_path / "tiny.anydepth"))


def test_everything_that_differs_is_named(profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "profile.json")
    other = make_detector(make_tiny_bundle(tmp_path / "tiny.anydepth", seed=9).path, threads=2)
    with pytest.raises(ProfileError, match=r"threads '1'.*; bundle_sha256 '.*; measure again with the profile tool"):
        Profile.load(tmp_path / "profile.json", other)


def test_steps_add_up_to_a_configuration(detector: Detector, profile: Profile) -> None:
    steps = {step: Times(2.0, 2.0, 2.0, 2.0) for step in profile.steps}
    steps[Step("p3", "full")] = Times(5.0, 5.0, 6.0, 7.0)
    built = replace(profile, steps=steps, load_state=LoadState())
    assert built.step_ms[Step("p3", "full")] == 5.0
    assert built.predict(DepthConfig.parse("FFEE.FFEE"), detector.bundle) == 9 * 2.0 + 5.0
    full, base = (times.inference.p50_ms for times in reversed(profile.times))
    assert built.steps_over_rungs(detector.bundle) == pytest.approx((23.0 / full + 20.0 / base) / 2)


def with_times(profile: Profile, load: float | None) -> Profile:
    """A profile of base and full whose medians are far from the shortest times."""
    base, full = (times.config for times in profile.times)
    return replace(
        profile,
        load_state=LoadState(others_cpu_load=load),
        preprocess=Times(1.0, 2.0, 3.0, 4.0),
        postprocess=Times(0.5, 5.0, 6.0, 7.0),
        times=(
            RungTimes(base, Times(10.0, 40.0, 60.0, 70.0), ()),
            RungTimes(full, Times(13.0, 50.0, 80.0, 90.0), ()),
        ),
        steps={STEM: Times(0.1, 0.2, 0.3, 0.4)},
    )


@pytest.mark.parametrize("load", [0.0, 0.19, None])
def test_medians_count_where_the_machine_was_not_known_to_be_busy(
    detector: Detector, profile: Profile, load: float | None
) -> None:
    idle = with_times(profile, load)
    assert [rung.latency_ms for rung in idle.rungs(detector.bundle)] == pytest.approx([40.0, 50.0], rel=0.01)
    assert idle.host_ms == 7.0
    assert idle.step_ms == {STEM: 0.2}


def test_shortest_times_count_where_others_kept_the_machine_busy(detector: Detector, profile: Profile) -> None:
    busy = with_times(profile, 0.5)
    assert [rung.latency_ms for rung in busy.ladder(detector.bundle).rungs] == pytest.approx([10.0, 13.0], rel=0.01)
    assert busy.host_ms == 1.5
    assert busy.step_ms == {STEM: 0.1}


def test_full_that_was_measured_faster_than_base_counts_as_slower_and_the_contradiction_is_told(
    detector: Detector, profile: Profile
) -> None:
    base, full = (times.config for times in profile.times)
    times = (RungTimes(base, Times(50.0, 50.0, 50.0, 50.0), ()), RungTimes(full, Times(40.0, 40.0, 40.0, 40.0), ()))
    fit = replace(profile, times=times).fit(detector.bundle)
    assert fit.residual > MOST_RESIDUAL
    ladder = replace(profile, times=times).ladder(detector.bundle)
    assert [rung.config for rung in ladder.rungs] == [base, full]
    assert 38.0 < ladder.base.latency_ms < ladder.full.latency_ms < 50.0


def test_scatter_is_that_of_the_median_and_a_single_stall_is_not_in_it() -> None:
    calm = (10.0, 10.1, 10.2, 10.1, 10.0, 10.1, 10.2, 10.1)
    base = DepthConfig.parse("EEEE.EEEE")
    scatters = [
        RungTimes(base, Times(1.0, 1.0, 1.0, 1.0), (), samples).scatter
        for samples in (calm, (*calm[:-1], 80.0), (10.0, 14.0) * 4, ())
    ]
    assert scatters[0] < scatters[1] < 0.005 < 0.1 < scatters[2] and scatters[3] == 0.0


def change(*keys: str, value: object) -> Callable[[dict[str, Any]], object]:
    def damage(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return damage


FULL = ("rungs", "FFFF.FFFF")
DAMAGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (change("schema_version", value="3"), "key 'schema_version' is '3'"),
    (change("schema_version", value=None), "key 'schema_version' is None"),
    (change("rungs", value={}), "rungs are empty"),
    (change("rungs", value=3), "rungs is a int, expected an object"),
    (change("rungs", "FFFX", value={}), "'FFFX' is not a depth configuration"),
    (change("rungs", "FFFF", value={}), "has 4 stages, this network has 8"),
    (change("rungs", "../../../etc/passwd", value={}), "is not a depth configuration"),
    (change(*FULL, value=[]), "rungs.FFFF.FFFF is a list, expected an object"),
    (change(*FULL, "p50_ms", value=-1.0), "rungs.FFFF.FFFF key 'p50_ms' is -1.0, expected a number from"),
    (change(*FULL, "p50_ms", value="1"), "'p50_ms' is '1', expected a number"),
    (change(*FULL, "p50_ms", value=True), "'p50_ms' is True, expected a number"),
    (change(*FULL, "p50_ms", value=math.nan), "'p50_ms' is nan, expected a number"),
    (change(*FULL, "p50_ms", value=math.inf), "'p50_ms' is inf, expected a number"),
    (change(*FULL, "p50_ms", value=10**400), "'p50_ms' is 1000"),
    (change(*FULL, "min_ms", value=1e6), "expected times ascending"),
    (change(*FULL, "p99_ms", value=1e-6), "expected times ascending"),
    (change(*FULL, "groups_p50_ms", value=1), "rungs.FFFF.FFFF key 'groups_p50_ms' is 1, expected a list of numbers"),
    (change(*FULL, "samples_ms", value=[0]), "rungs.FFFF.FFFF key 'samples_ms' is .0., expected a list of numbers"),
    (change(*FULL, "groups_p50_ms", value=[0]), "'groups_p50_ms' is .0., expected a list of numbers"),
    (change("preprocess", "p50_ms", value=math.nan), "preprocess key 'p50_ms' is nan"),
    (change("fingerprint", value=None), "fingerprint is a NoneType, expected an object"),
    (change("fingerprint", "threads", value=1), "fingerprint key 'threads' is 1, expected a text"),
    (change("rounds", value=0), "'rounds' is 0"),
    (change("image_width", value=10**30), "'image_width' is 1000"),
    (change("image_height", value=1.5), "'image_height' is 1.5"),
    (change("entries", "stem", "only", value={}), "entries.stem.only lacks the key 'min_ms'"),
    (change("steps_measured", value="yes"), "'steps_measured' is 'yes'"),
    (change("load_state", "others_cpu_load", value=2), "load_state key 'others_cpu_load' is 2"),
    (change("load_state", "cpu_mhz", value=[]), "'cpu_mhz' is .., expected a number"),
    (change("load_state", "clocks_pinned", value=1), "'clocks_pinned' is 1"),
    (lambda document: document["load_state"].pop("clocks_pinned"), "load_state lacks the key 'clocks_pinned'"),
    (lambda document: document.pop("rungs"), "lacks the key 'rungs'"),
    (lambda document: document["entries"]["p4"].pop("full"), "entries.p4 lacks the key 'full'"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_damaged_profile_is_refused(
    detector: Detector,
    profile: Profile,
    tmp_path: Path,
    damage: Callable[[dict[str, Any]], object],
    reason: str,
) -> None:
    path = tmp_path / "profile.json"
    profile.save(path)
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match=rf"profile\.json: not a valid profile: .*{reason}.*measure again"):
        Profile.load(path, detector)


@pytest.mark.parametrize("version", [1, 2, 3, -(10**30)])
def test_other_formats_are_refused_with_what_to_do(
    detector: Detector, profile: Profile, tmp_path: Path, version: int
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"schema_version": version}))
    with pytest.raises(ProfileError, match=r"written in format .*, this release reads format 4; measure again"):
        Profile.load(path, detector)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b'{"schema_version": 4, "rungs": ' + b'{"a":' * 900, b"[]", b"2"],
)
def test_file_that_is_no_profile_is_refused(detector: Detector, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(data)
    with pytest.raises(ProfileError, match=r"profile\.json: not a (readable|valid) profile"):
        Profile.load(path, detector)


def test_huge_file_is_refused_unread(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ProfileError, match="more than 16777216 bytes"):
        Profile.load(path, detector)


def test_pipe_is_refused_without_waiting(detector: Detector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "profile.json")
    with pytest.raises(ProfileError, match="not a file that can be read"):
        Profile.load(tmp_path / "profile.json", detector)


@pytest.mark.parametrize("name", ["", "\0", "x" * 300])
def test_path_that_no_file_has_is_refused(detector: Detector, name: str) -> None:
    with pytest.raises(ProfileError):
        Profile.load(Path(name), detector)


def test_truncated_and_missing_profiles_are_refused(detector: Detector, profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    with pytest.raises(ProfileError, match="no such profile"):
        Profile.load(path, detector)
    profile.save(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ProfileError, match="not a readable profile"):
        Profile.load(path, detector)


def test_flipped_bytes_are_refused_or_leave_a_sound_profile(
    detector: Detector, profile: Profile, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    profile.save(path)
    good, picks, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(500):
        data = bytearray(good)
        # Half of the time a digit for a digit, which may well leave a valid profile.
        digits = [index for index, byte in enumerate(good) if chr(byte).isdigit()]
        if picks.random() < 0.5:
            data[picks.choice(digits)] = picks.choice(b"0123456789")
        else:
            data[picks.randrange(len(data))] = picks.randrange(256)
        path.write_bytes(data)
        try:
            loaded = Profile.load(path, detector)
        except ProfileError:
            refused += 1
            continue
        assert loaded.fingerprint == profile.fingerprint
        assert all(0 < ms < 1e9 for ms in loaded.step_ms.values())
        assert all(0 < rung.latency_ms < 1e9 for rung in loaded.rungs(detector.bundle))
    assert 0 < refused < 500


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, of a machine that does not tell its power mode."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("anydepth_perception.profile.identity.power_mode", lambda: "unknown")
    return tmp_path / "cache" / "anydepth_perception" / "profiles"


def test_profile_lies_in_the_users_cache(detector: Detector, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_path(detector) == cache / "tiny-onnxruntime-float32-1-whole.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_path(detector).is_relative_to(Path.home() / ".cache")


def test_executions_and_power_modes_have_files_of_their_own(
    tiny_bundle_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = make_detector(tiny_bundle_path, execution="staged")
    assert default_path(staged).name == "tiny-onnxruntime-float32-1-staged.json"
    monkeypatch.setattr("anydepth_perception.profile.identity.power_mode", lambda: "7W (nvpmodel 1)")
    assert default_path(staged).name.startswith("tiny-onnxruntime-float32-1-staged-7W_nvpmodel_1_-")


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "..", "x" * 500, "a b\n\u00e9"])
def test_bundle_of_any_name_has_its_profile_inside_the_cache(tmp_path: Path, cache: Path, name: str) -> None:
    write_bundle(tmp_path / "tiny.anydepth", {**tiny_manifest(), "name": name}, tiny_segments())
    named = make_detector(tmp_path / "tiny.anydepth")
    path = default_path(named)
    assert path.parent == cache
    assert len(path.name) < 200
    measure_profile(named, 3).save(path)
    assert path.resolve().parent == cache.resolve()


def test_place_that_cannot_be_written_is_reported(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(ProfileError, match=r"profile\.json: cannot be written"):
        profile.save(tmp_path / "file" / "profile.json")

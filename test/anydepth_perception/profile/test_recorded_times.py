"""Recorded times: what is written can be replayed, and a path that nothing can be written to is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.simulation.trace import read_trace
from anydepth_perception.detection.detector import DetectionResult
from anydepth_perception.detection.postprocess import Detections
from anydepth_perception.profile import recorded_times
from anydepth_perception.profile.recorded_times import RecordedTimes, check_writable


@pytest.fixture
def bundle(tiny_bundle_path: Path) -> Bundle:
    return Bundle.load(tiny_bundle_path)


def recorded(bundle: Bundle, groups: tuple[tuple[str, ...], ...]) -> RecordedTimes:
    return RecordedTimes(bundle, groups, dict.fromkeys(bundle.space.steps, 2.0))


def served(bundle: Bundle, depth: str, *group_ms: float) -> DetectionResult:
    config = bundle.space.parse(depth)
    return DetectionResult(Detections.empty(), config, 1.0, sum(group_ms), 0.5, group_ms)


@pytest.mark.parametrize("points", [(), ("p4",)])
def test_any_execution_is_replayed_with_the_times_that_were_seen(
    bundle: Bundle, tmp_path: Path, points: tuple[str, ...]
) -> None:
    groups = bundle.space.groups(points)
    times = recorded(bundle, groups)
    for depth, ms in (("full", 9.0), ("base", 7.0), ("full", 30.0)):
        times.add(served(bundle, depth, *[ms] * len(groups)), ms * len(groups) + 2.0)
    times.save(tmp_path / "times.npz")
    trace = read_trace(tmp_path / "times.npz")
    assert len(trace) == len(times) == 3
    full, base = trace.frame_ms(bundle.full), trace.frame_ms(bundle.base)
    assert [full[0], base[1], full[2]] == pytest.approx([ms * len(groups) + 2.0 for ms in (9.0, 7.0, 30.0)])
    assert trace.measured_full_ms == pytest.approx([9.0 * len(groups) + 2.0, 30.0 * len(groups) + 2.0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["times.npz"]


def test_no_more_frames_are_kept_than_the_bound(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_times, "MAX_FRAMES", 2)
    times = recorded(bundle, bundle.space.groups(()))
    for ms in (5.0, 6.0, 7.0):
        times.add(served(bundle, "full", ms), ms)
    assert times.arrays()["frame_ms"].tolist() == [5.0, 6.0]


def test_nothing_recorded_can_be_saved(bundle: Bundle, tmp_path: Path) -> None:
    recorded(bundle, bundle.space.groups(())).save(tmp_path / "times.npz")
    with np.load(tmp_path / "times.npz") as arrays:
        assert arrays["frame_ms"].shape == (0,)


@pytest.mark.parametrize(
    ("path", "said"), [("times.txt", r"expected the path of an \.npz file"), ("none/times.npz", "does not exist, make")]
)
def test_a_path_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        check_writable(path)


def test_no_path_and_a_path_in_a_folder_are_accepted(tmp_path: Path) -> None:
    check_writable("")
    check_writable(str(tmp_path / "times.npz"))

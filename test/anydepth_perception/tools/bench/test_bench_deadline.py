"""The figures of the live measurement of the depth control, on frames given by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.simulation.trace import read_trace
from anydepth_perception.tools.bench.cameras import shares
from anydepth_perception.tools.bench.deadline import shipped_trace
from anydepth_perception.tools.bench.deadline_live import IdleTimes, figures, refinements_ms
from anydepth_perception.tools.demo.recorder import ServedFrame
from anydepth_perception.tools.demo.turns import Turn, policy_at

DEADLINE_MS = 50.0
IDLE = IdleTimes(full_p50=40.0, full_p99=44.0, base_p50=30.0, full_inference=36.0, base_inference=26.0)
TURNS = (Turn("auto", 0, 100), Turn("full", 100, 200), Turn("base", 200, 300))


def served(stamp_ns: int, depth: str, latency_ms: float, inference_ms: float) -> ServedFrame:
    return ServedFrame(stamp_ns, depth, latency_ms, inference_ms, latency_ms > DEADLINE_MS)


@pytest.fixture(scope="module")
def tiny_bundle(tiny_bundle_path: Path) -> Bundle:
    return Bundle.load(tiny_bundle_path)


@pytest.fixture
def texts(tiny_bundle: Bundle) -> tuple[str, str]:
    return str(tiny_bundle.full), str(tiny_bundle.base)


def test_a_turn_leaves_out_its_first_frames_and_its_last_ones() -> None:
    turn = Turn.between("auto", 0, 10**9)
    assert [policy_at([turn], stamp) for stamp in (0, 10**8, 5 * 10**8, 95 * 10**7)] == [None, None, "auto", None]


def test_refinements_take_what_full_takes_beyond_base(tiny_bundle: Bundle, texts: tuple[str, str]) -> None:
    full, base = texts
    found = refinements_ms([served(0, full, 80.0, 72.0), served(1, base, 60.0, 52.0)], IDLE, tiny_bundle)
    assert found == {0: pytest.approx(20.0), 1: 0.0}


def test_a_stall_of_one_frame_is_not_its_refinements(tiny_bundle: Bundle, texts: tuple[str, str]) -> None:
    full, _ = texts
    frames = [served(index, full, 200.0, 36.0 * (5.0 if index == 3 else 1.0)) for index in range(7)]
    assert refinements_ms(frames, IDLE, tiny_bundle)[3] == pytest.approx(10.0)


def test_a_miss_is_avoidable_where_base_would_have_been_in_time(tiny_bundle: Bundle, texts: tuple[str, str]) -> None:
    full, base = texts
    frames = [
        served(10, full, 40.0, 36.0),  # in time
        served(20, full, 55.0, 50.0),  # 13.9 ms of refinements, 10 less any stall: avoidable
        served(30, full, 95.0, 90.0),  # base would have taken 70 ms
        served(40, base, 55.0, 50.0),  # nothing to leave out
    ]
    auto = figures(TURNS, [10, 20, 30, 40], frames, DEADLINE_MS, IDLE, tiny_bundle)["auto"]
    assert (auto["frames"], auto["miss_percent"], auto["avoidable_miss_percent"]) == (4, 75.0, 25.0)
    assert auto["effective_ap"] == pytest.approx(25 * tiny_bundle.average_precision(tiny_bundle.full), abs=1e-3)


def test_a_frame_left_out_is_avoidable_behind_a_refined_one_alone(
    tiny_bundle: Bundle, texts: tuple[str, str]
) -> None:
    full, base = texts
    frames = [served(110, full, 40.0, 36.0), served(210, base, 40.0, 36.0)]
    found = figures(TURNS, [110, 120, 210, 220], frames, DEADLINE_MS, IDLE, tiny_bundle)
    assert (found["full"]["miss_percent"], found["full"]["avoidable_miss_percent"]) == (50.0, 50.0)
    assert (found["base"]["miss_percent"], found["base"]["avoidable_miss_percent"]) == (50.0, 0.0)


def test_the_shipped_trace_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_trace(shipped_trace())) == 3000


def test_the_worst_camera_is_told_by_its_distance_from_an_equal_share() -> None:
    found = shares([40, 44, 36, 40], seconds=10.0)
    assert found == {"served_percent": 40.0, "per_second": [4.0, 4.4, 3.6, 4.0], "worst_percent": 10.0}
    assert shares([0, 0], seconds=1.0)["worst_percent"] == 100.0

"""The demo's choice of load and deadline, on latencies given by hand."""

from __future__ import annotations

from typing import Any

import pytest

from anydepth_perception.tools.demo import calibration
from anydepth_perception.tools.demo.calibration import Latencies, calibrate


class FakeLoad:
    """Stands in for the busy processes; remembers which niceness is in force."""

    now: int | None = None

    def __init__(self, niceness: int) -> None:
        self._niceness = niceness

    def __enter__(self) -> None:
        FakeLoad.now = self._niceness

    def __exit__(self, *_: object) -> None:
        FakeLoad.now = None


@pytest.fixture
def slowdowns(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Slowdown by niceness; the machine takes 20 ms at full and 14 ms at base, give or take a tenth."""
    factors: dict[int, float] = {}

    def measure(_: Any) -> tuple[Latencies, Latencies]:
        factor = 1.0 if FakeLoad.now is None else factors[FakeLoad.now]
        base, full = (
            Latencies(tuple(time_ms * factor * (0.9 + 0.02 * index) for index in range(11))) for time_ms in (14.0, 20.0)
        )
        return base, full

    monkeypatch.setattr(calibration, "BusyProcesses", FakeLoad)
    monkeypatch.setattr(calibration, "measure", measure)
    return factors


def run() -> calibration.Calibration:
    return calibrate(None, lambda text: None)  # type: ignore[arg-type]


def test_the_weakest_load_that_makes_full_depth_late_is_taken(slowdowns: dict[int, float]) -> None:
    slowdowns.update({3: 1.2, 2: 1.6, 1: 2.0, 0: 2.2})
    chosen = run()
    assert chosen.niceness == 2
    assert chosen.full_late >= calibration.CLEARLY_LATE
    assert chosen.base_loaded.p90 < chosen.deadline_ms < chosen.full_loaded.p50


def test_full_depth_meets_the_deadline_on_the_idle_machine(slowdowns: dict[int, float]) -> None:
    slowdowns.update(dict.fromkeys(calibration.NICENESS, 1.6))
    assert run().full_idle.p90 * calibration.FULL_HEADROOM <= run().deadline_ms + 0.05


def test_a_machine_that_every_load_slows_much_gets_the_weakest_and_a_longer_deadline(
    slowdowns: dict[int, float]
) -> None:
    slowdowns.update(dict.fromkeys(calibration.NICENESS, 3.0))
    chosen = run()
    assert chosen.niceness == calibration.NICENESS[0]
    assert chosen.base_loaded.p90 < chosen.deadline_ms < chosen.full_loaded.p50


def test_where_no_load_is_strong_enough_the_one_with_most_late_frames_is_taken(slowdowns: dict[int, float]) -> None:
    slowdowns.update({3: 1.1, 2: 1.25, 1: 1.1, 0: 1.05})
    chosen = run()
    assert chosen.niceness == 2
    assert 0.0 < chosen.full_late < calibration.CLEARLY_LATE

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
    """Slowdown by niceness; the machine takes 20 ms at full and 14 ms at base."""
    factors: dict[int, float] = {}

    def measure(_: Any, depth: str) -> Latencies:
        factor = 1.0 if FakeLoad.now is None else factors[FakeLoad.now]
        time_ms = {"full": 20.0, "base": 14.0}[depth] * factor
        return Latencies(time_ms, 1.1 * time_ms)

    monkeypatch.setattr(calibration, "BusyProcesses", FakeLoad)
    monkeypatch.setattr(calibration, "measure", measure)
    return factors


def run() -> calibration.Calibration:
    return calibrate(None, lambda text: None)  # type: ignore[arg-type]


def test_the_weakest_load_that_full_depth_does_not_withstand_is_taken(slowdowns: dict[int, float]) -> None:
    slowdowns.update({7: 1.1, 4: 1.4, 3: 1.6, 2: 1.7, 1: 2.0, 0: 2.2})
    chosen = run()
    assert chosen.niceness == 3
    assert chosen.deadline_ms == 35.0
    assert chosen.base_loaded.p90 < chosen.deadline_ms < chosen.full_loaded.p90


def test_a_load_that_base_does_not_withstand_is_not_taken(slowdowns: dict[int, float]) -> None:
    slowdowns.update({7: 1.2, 4: 2.4, 3: 3.0, 2: 3.0, 1: 3.0, 0: 3.0})
    assert run().niceness == 7


def test_a_machine_that_no_load_slows_gets_the_strongest(slowdowns: dict[int, float]) -> None:
    slowdowns.update(dict.fromkeys(calibration.NICENESS, 1.05))
    assert run().niceness == calibration.NICENESS[-1]


def test_where_base_withstands_no_load_the_deadline_makes_room_for_the_weakest(slowdowns: dict[int, float]) -> None:
    slowdowns.update(dict.fromkeys(calibration.NICENESS, 3.0))
    chosen = run()
    assert chosen.niceness == calibration.NICENESS[0]
    assert chosen.base_loaded.p90 < chosen.deadline_ms < chosen.full_loaded.p50

"""The DVFS trap, seen in made-up readings."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from anydepth_perception.profile.dvfs_trap import DvfsTrap
from anydepth_perception.profile.system import Clock, SystemLoad

DEEP_MS, SHALLOW_MS = 31.0, 22.0


def gpu(mhz: float | None, cap_mhz: float = 1020.0) -> SystemLoad:
    return SystemLoad(gpu_clock=Clock(mhz, cap_mhz))


def observe(trap: DvfsTrap, readings: Iterable[tuple[SystemLoad, float | None]]) -> list[str | None]:
    return [trap.observe(load, depth_ms) for load, depth_ms in readings]


WAVERING = [gpu(mhz) for mhz in (1020.0, 500.0, 1020.0, 500.0, 1020.0, 500.0)]
FALL = [(gpu(1020.0), DEEP_MS)] * 3 + [(gpu(612.0), SHALLOW_MS)] * 3


def test_clock_that_falls_with_depth_is_warned_of_with_the_remedy() -> None:
    told = observe(DvfsTrap(), FALL)
    assert told[:-1] == [None] * 5
    assert told[-1] is not None and "GPU clock fell from 1020 MHz" in told[-1] and "sudo jetson_clocks" in told[-1]
    assert "\n" not in told[-1]


def test_clock_of_the_cpu_counts_too() -> None:
    clocks_mhz = (2900.0, 2950.0, 2900.0, 2000.0, 1500.0, 900.0)
    loads = [SystemLoad(cpu_clocks={"policy0": Clock(mhz, 3000.0)}) for mhz in clocks_mhz]
    told = observe(DvfsTrap(), zip(loads, [DEEP_MS] * 3 + [SHALLOW_MS] * 3, strict=True))
    assert told[-1] is not None and "CPU clock fell" in told[-1]


@pytest.mark.parametrize("readings", [
    [(gpu(1020.0), DEEP_MS)] * 3 + [(gpu(612.0), DEEP_MS)] * 3,
    [(gpu(1020.0), DEEP_MS)] * 3 + [(gpu(1020.0), SHALLOW_MS)] * 3,
    [(gpu(1020.0), SHALLOW_MS)] * 3 + [(gpu(612.0), DEEP_MS)] * 3,
    [(gpu(612.0), DEEP_MS)] * 3 + [(gpu(1020.0), SHALLOW_MS)] * 3,
    [(gpu(1020.0), DEEP_MS)] * 3 + [(gpu(612.0, 612.0), SHALLOW_MS)] * 3,
    list(zip(WAVERING, [DEEP_MS] * 3 + [SHALLOW_MS] * 3, strict=True)),
    [(gpu(None), DEEP_MS)] * 3 + [(gpu(612.0), SHALLOW_MS)] * 3,
    [(SystemLoad(), DEEP_MS)] * 3 + [(SystemLoad(), SHALLOW_MS)] * 3,
    [*FALL[:3], (gpu(1020.0), None), *FALL[3:]],
    [*FALL[:3], (gpu(1020.0), math.nan), *FALL[3:]],
], ids=["depth stays", "clock stays", "depth rises", "clock rises", "cap falls", "clock wavers", "clock unknown",
        "no clocks", "nothing served meanwhile", "depth not profiled"])
def test_is_not_seen_where(readings: list[tuple[SystemLoad, float | None]]) -> None:
    assert observe(DvfsTrap(), readings) == [None] * len(readings)


def test_warning_lasts_while_the_clock_and_depth_are_low() -> None:
    trap = DvfsTrap()
    (*_, first) = observe(trap, FALL)
    assert observe(trap, [(gpu(612.0), SHALLOW_MS)] * 10) == [first] * 10


@pytest.mark.parametrize(("mhz", "depth_ms"), [(1020.0, SHALLOW_MS), (612.0, DEEP_MS)], ids=["the clock", "depth"])
def test_warning_ends_when_what_fell_is_back(mhz: float, depth_ms: float) -> None:
    trap = DvfsTrap()
    observe(trap, [*FALL, *FALL[3:], *FALL[3:]])
    assert trap.observe(gpu(mhz), depth_ms) is None

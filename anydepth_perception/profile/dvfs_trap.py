"""The DVFS trap: less depth is less load, so the governor lowers the clock, and all gets slower still."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass

from anydepth_perception.profile.system import Clock, SystemLoad

_READINGS = 6
"""Readings that are compared, the newer half with the older one."""

_FALL = 0.05
"""Share by which the newer half lies lower at the least."""


@dataclass(frozen=True)
class _Reading:
    depth_ms: float
    cpu: Clock
    gpu: Clock

    def clock(self, name: str) -> Clock:
        return self.cpu if name == "CPU" else self.gpu


class DvfsTrap:
    """Watches clocks and depth together, one reading a second.

    The trap is seen when, over 6 readings, the mean depth fell by 5 % and each of the newer clocks lies 5 % below all
    of the older ones, while the cap of that clock stayed. It lasts until the clock is back or depth is.
    """

    def __init__(self) -> None:
        self._recent: deque[_Reading] = deque(maxlen=_READINGS)
        self._seen: tuple[str, float, float] | None = None

    def observe(self, load: SystemLoad, depth_ms: float | None) -> str | None:
        """The warning in one line while the machine is in the trap, else None.

        Args:
            load: the newest reading.
            depth_ms: profiled inference time of the depth that runs now, or any other number above 0 that grows with
                depth; None (or NaN) where depth is fixed or nothing runs, which starts anew.
        """
        if depth_ms is None or not math.isfinite(depth_ms):
            self._recent.clear()
            self._seen = None
            return None
        reading = _Reading(depth_ms, _mean_clock(load), load.gpu_clock or Clock())
        self._recent.append(reading)
        self._seen = self._seen if self._lasts(reading) else self._new()
        if self._seen is None:
            return None
        name, before_mhz, _ = self._seen
        return (
            f"the {name} clock fell from {before_mhz:.0f} MHz as depth fell, which makes inference slower still: "
            "pin the clocks (sudo jetson_clocks, or the governor performance)"
        )

    def _lasts(self, reading: _Reading) -> bool:
        if self._seen is None:
            return False
        name, before_mhz, before_ms = self._seen
        mhz = reading.clock(name).mhz
        return mhz is not None and mhz < (1.0 - _FALL) * before_mhz and reading.depth_ms < (1.0 - _FALL) * before_ms

    def _new(self) -> tuple[str, float, float] | None:
        """Name of the clock that fell, and its value and the depth before, where both fell."""
        if len(self._recent) < _READINGS:
            return None
        older, newer = list(self._recent)[: _READINGS // 2], list(self._recent)[_READINGS // 2 :]
        before_ms = statistics.mean(reading.depth_ms for reading in older)
        if statistics.mean(reading.depth_ms for reading in newer) > (1.0 - _FALL) * before_ms:
            return None
        for name in ("GPU", "CPU"):
            clocks = [reading.clock(name) for reading in self._recent]
            mhz = [clock.mhz for clock in clocks if clock.mhz is not None]
            if len(mhz) < _READINGS or len({clock.cap_mhz for clock in clocks}) > 1:
                continue
            before_mhz = min(mhz[: _READINGS // 2])
            if max(mhz[_READINGS // 2 :]) <= (1.0 - _FALL) * before_mhz:
                return name, before_mhz, before_ms
        return None


def _mean_clock(load: SystemLoad) -> Clock:
    """Mean of the CPUs' clocks and of their caps."""
    mhz = [clock.mhz for clock in load.cpu_clocks.values() if clock.mhz is not None]
    caps_mhz = [clock.cap_mhz for clock in load.cpu_clocks.values() if clock.cap_mhz is not None]
    return Clock(statistics.mean(mhz) if mhz else None, statistics.mean(caps_mhz) if caps_mhz else None)

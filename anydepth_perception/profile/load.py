"""CPU load of the machine and memory of this process, for diagnostics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import psutil


class CpuLoad:
    """Share of all CPUs' time that was busy since the last sample."""

    def __init__(self) -> None:
        """Starts the first interval."""
        self._previous = _busy_and_total_s()

    def sample(self) -> float | None:
        """Busy share in [0, 1] since the last call (or the start); None where the system does not say."""
        current = _busy_and_total_s()
        if current is None or self._previous is None:
            self._previous = current
            return None
        busy, total = current[0] - self._previous[0], current[1] - self._previous[1]
        if total <= 0.0:
            return None
        self._previous = current
        return min(1.0, max(0.0, busy / total))


class CoreLoads:
    """Share of each CPU's time that was busy since the last sample."""

    def __init__(self) -> None:
        """Starts the first interval."""
        self._previous = _cores_busy_and_total_s()

    def sample(self) -> tuple[float, ...]:
        """Busy shares in [0, 1] since the last call that gave some (or the start), in the order of the CPUs.

        Empty where the system does not say, no time passed, or CPUs came or went meanwhile: which ones is not told.
        """
        before, current = self._previous, _cores_busy_and_total_s()
        if len(before) != len(current):
            self._previous = current
            return ()
        passed = [(now[0] - then[0], now[1] - then[1]) for then, now in zip(before, current, strict=True)]
        if sum(total for _, total in passed) <= 0.0:
            return ()
        self._previous = current
        return tuple(min(1.0, max(0.0, busy / total)) if total > 0.0 else 0.0 for busy, total in passed)


class _Times(Protocol):
    """What psutil tells of one CPU, or of all together, at the least; it can be iterated over too."""

    @property
    def idle(self) -> float: ...

    def __iter__(self) -> Iterator[float]: ...


def _busy_and_total_s() -> tuple[float, float] | None:
    """Seconds since boot, of all CPUs together; None where the system does not say.

    psutil's own percentages need 0.1 s at the least and keep the last sample in a global.
    """
    try:
        return _split_s(psutil.cpu_times())
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def _cores_busy_and_total_s() -> list[tuple[float, float]]:
    """As `_busy_and_total_s`, of each CPU; empty where the system does not say."""
    try:
        return [_split_s(times) for times in psutil.cpu_times(percpu=True)]
    except (OSError, ValueError, IndexError, psutil.Error):
        return []


def _split_s(times: _Times) -> tuple[float, float]:
    # What guests of this machine take is in the times of their users already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def process_memory_bytes() -> int | None:
    """Resident memory of this process in bytes; None where the system does not say."""
    try:
        return psutil.Process().memory_info().rss
    except (OSError, ValueError, IndexError, psutil.Error):
        return None

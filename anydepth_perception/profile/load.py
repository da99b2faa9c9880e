"""CPU load of the machine and memory of this process, for diagnostics."""

from __future__ import annotations

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


def _busy_and_total_s() -> tuple[float, float] | None:
    """Seconds since boot, of all CPUs together; None where the system does not say.

    psutil's own percentages need 0.1 s at the least and keep the last sample in a global.
    """
    try:
        times = psutil.cpu_times()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    # What guests of this machine take is in the times of their users already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def process_memory_bytes() -> int | None:
    """Resident memory of this process in bytes; None where the system does not say."""
    try:
        return psutil.Process().memory_info().rss
    except (OSError, ValueError, IndexError, psutil.Error):
        return None

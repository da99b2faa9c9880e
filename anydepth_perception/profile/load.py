"""CPU load of the machine and memory of this process, from /proc, for diagnostics."""

from __future__ import annotations

import os
from pathlib import Path


class CpuLoad:
    """Share of all CPUs' time that was busy since the last sample."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """Starts the first interval; `proc` is where /proc is mounted."""
        self._path = proc / "stat"
        self._previous = self._read()

    def sample(self) -> float | None:
        """Busy share in [0, 1] since the last call (or the start); None where the system does not say."""
        current = self._read()
        if current is None or self._previous is None:
            self._previous = current
            return None
        busy, total = current[0] - self._previous[0], current[1] - self._previous[1]
        if total <= 0:
            return None
        self._previous = current
        return min(1.0, max(0.0, busy / total))

    def _read(self) -> tuple[int, int] | None:
        """Busy and total clock ticks since boot, all CPUs together."""
        try:
            with self._path.open() as file:
                ticks = [int(text) for text in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        if len(ticks) < 4:
            return None
        idle = sum(ticks[3:5])  # idle and iowait
        return sum(ticks) - idle, sum(ticks)


def process_memory_bytes(proc: Path = Path("/proc")) -> int | None:
    """Resident memory of this process in bytes; None where the system does not say."""
    try:
        return int((proc / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None

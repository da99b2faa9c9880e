"""What the soak asks of the node's process and of its counters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil

MOST_GROWTH_MIB = 20.0
MOST_MORE_THREADS = 1
MOST_MORE_DESCRIPTORS = 2
MOST_P99_MS = 50.0


@dataclass(frozen=True)
class Footprint:
    """Memory, threads and descriptors of a process."""

    rss_mib: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """As they are now."""
        process = psutil.Process(pid)
        return cls(process.memory_info().rss / 2**20, process.num_threads(), process.num_fds())


@dataclass
class Findings:
    """What is wrong so far, one line each, and what was measured on the way."""

    faults: list[str] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    set_ms: list[float] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, by: int = 1) -> None:
        """Counts something that was done or seen."""
        self.done[what] = self.done.get(what, 0) + by

    def check_counts(self, topic: str, values: Mapping[str, str], sent: int) -> None:
        """Each frame that arrived has one fate, and none arrived that was not sent."""
        counts = {key: int(value) for key, value in values.items() if key.startswith("frames_")}
        fates = sum(counts[f"frames_{fate}"] for fate in ("served", "replaced", "dropped", "bad", "failed"))
        if counts["frames_received"] != fates:
            self.faults.append(f"{topic}: {counts['frames_received']} received, {fates} accounted for: {counts}")
        if counts["frames_received"] > sent:
            self.faults.append(f"{topic}: {counts['frames_received']} received of {sent} sent")
        if counts["frames_failed"]:
            self.faults.append(f"{topic}: {counts['frames_failed']} frames failed")
        for fate, number in counts.items():
            self.count(fate, number)

    def check_log(self, log: str) -> None:
        """No traceback, no failed callback, no line that goes on for ever."""
        for pattern in ("Traceback", "a callback failed", "Segmentation fault", "serving a frame failed"):
            for line in re.findall(f".*{pattern}.*", log)[:3]:
                self.faults.append(f"log: {line[:300]}")
        longest = max(map(len, log.splitlines()), default=0)
        if longest > 5000:
            self.faults.append(f"log: a line of {longest} characters")

    def conclude(self) -> list[str]:
        """Holds what was measured against the bars; all faults."""
        if len(self.footprints) >= 4:
            quarter = len(self.footprints) // 4
            warm, last = self.footprints[quarter : 2 * quarter], self.footprints[-2 * quarter :]
            first_mib, last_mib = (float(np.median([item.rss_mib for item in items])) for items in (warm, last))
            growth = last_mib - first_mib
            threads = max(item.threads for item in last) - max(item.threads for item in warm)
            descriptors = max(item.descriptors for item in last) - max(item.descriptors for item in warm)
            self.done |= {"rss_growth_mib": round(growth), "more_threads": threads, "more_descriptors": descriptors}
            if growth > MOST_GROWTH_MIB:
                self.faults.append(f"memory grew by {growth:.0f} MiB behind the warm-up")
            if threads > MOST_MORE_THREADS or descriptors > MOST_MORE_DESCRIPTORS:
                self.faults.append(f"{threads} threads and {descriptors} descriptors more than behind the warm-up")
        if self.set_ms:
            p99 = float(np.percentile(self.set_ms, 99))
            self.done["set_parameters_p99_ms"] = round(p99)
            if p99 > MOST_P99_MS:
                self.faults.append(f"set_parameters takes {p99:.0f} ms (p99 of {len(self.set_ms)})")
        return self.faults

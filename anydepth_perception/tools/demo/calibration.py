"""Sizes the demo's load and deadline to the machine: under the load full depth is late, base is in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anydepth_perception.tools.demo.load import BusyProcesses
from anydepth_perception.tools.demo.recorder import Recorder

FULL_HEADROOM = 1.15
"""The deadline over the 90th percentile of full depth on the idle machine, at least."""

BASE_HEADROOM = 1.1
"""The deadline over the 90th percentile of base under the load, at least."""

NICENESS = (3, 2, 1, 0)
"""Loads to try, weakest first. Of weaker ones some frames feel much and others nothing."""

CLEARLY_LATE = 0.8
"""Share of the frames at full depth that are late under a load which needs no stronger one."""

_FRAMES = 8
_ROUNDS = 3
_SETTLE_FRAMES = 3


@dataclass(frozen=True)
class Latencies:
    """Camera stamp to published detections of some frames, milliseconds."""

    values: tuple[float, ...]

    @property
    def p50(self) -> float:
        """Median."""
        return float(np.percentile(self.values, 50))

    @property
    def p90(self) -> float:
        """90th percentile."""
        return float(np.percentile(self.values, 90))

    def share_above(self, milliseconds: float) -> float:
        """Share in [0, 1] that took longer."""
        return sum(value > milliseconds for value in self.values) / len(self.values)

    def __str__(self) -> str:
        return f"{self.p50:.1f} ms (p90 {self.p90:.1f})"


@dataclass(frozen=True)
class Calibration:
    """The deadline in milliseconds, the niceness of the busy processes, and the latencies that decided it."""

    deadline_ms: float
    niceness: int
    full_idle: Latencies
    base_idle: Latencies
    base_loaded: Latencies
    full_loaded: Latencies

    @property
    def full_late(self) -> float:
        """Share in [0, 1] of the frames at full depth that were late under the load."""
        return self.full_loaded.share_above(self.deadline_ms)


def calibrate(recorder: Recorder, say: Callable[[str], None]) -> Calibration:
    """Measures with the running camera and detector.

    With each load goes a deadline midway between what base takes at most and what full depth usually takes under it,
    but one that full depth meets on the idle machine. The first load under which nearly all frames at full depth are
    late is taken, or else the one with most of them.
    """
    base_idle, full_idle = measure(recorder)
    say(f"idle: full {full_idle}, base {base_idle}")
    tried: list[Calibration] = []
    for niceness in NICENESS:
        with BusyProcesses(niceness):
            base, full = measure(recorder)
        midway_ms = math.sqrt(base.p90 * full.p50)
        deadline_ms = round(max(FULL_HEADROOM * full_idle.p90, BASE_HEADROOM * base.p90, midway_ms), 1)
        tried.append(Calibration(deadline_ms, niceness, full_idle, base_idle, base, full))
        say(
            f"load of niceness {niceness}: full {full}, base {base}; of a deadline of {deadline_ms} ms "
            f"full misses {100 * tried[-1].full_late:.0f} %"
        )
        if tried[-1].full_late >= CLEARLY_LATE:
            break
    return max(tried, key=lambda calibration: calibration.full_late)


def measure(recorder: Recorder) -> tuple[Latencies, Latencies]:
    """Latencies at base and at full, which take turns."""
    found: dict[str, list[float]] = {"base": [], "full": []}
    for depth in ("base", "full") * _ROUNDS:
        found[depth] += _latencies_ms(recorder, depth)
    return Latencies(tuple(found["base"])), Latencies(tuple(found["full"]))


def _latencies_ms(recorder: Recorder, depth: str) -> Sequence[float]:
    recorder.set_parameters(depth=depth)
    recording = recorder.start()
    needed = _SETTLE_FRAMES + _FRAMES
    recorder.spin_until(lambda: len(recording.served) >= needed, f"{needed} frames at depth {depth}", 60.0)
    return [frame.latency_ms for frame in recording.served[_SETTLE_FRAMES:needed]]

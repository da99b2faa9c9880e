"""Sizes the demo's load and deadline to the machine: full depth fits when idle, base fits under the load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anydepth_perception.tools.demo.load import BusyProcesses
from anydepth_perception.tools.demo.recorder import Recorder

HEADROOM_P50, HEADROOM_P90 = 1.75, 1.5
"""The deadline over the idle full-depth latency, median and 90th percentile: room for the controller's margin."""

LATE_HEADROOM = 1.1
"""The deadline over the 90th percentile of base under the weakest load, where base would miss it otherwise."""

NICENESS = (7, 4, 3, 2, 1, 0)
"""Loads to try, weakest first."""

_FRAMES = 15
_SETTLE_FRAMES = 3


@dataclass(frozen=True)
class Latencies:
    """Camera stamp to published detections over some frames, milliseconds."""

    p50: float
    p90: float

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


def calibrate(recorder: Recorder, say: Callable[[str], None]) -> Calibration:
    """Measures with the running camera and detector.

    The deadline is the idle latency at full depth with headroom. The load is the weakest one under which full
    depth misses that deadline in more than 1 of 10 frames while base keeps it in 9 of 10; where none does both, the
    strongest one that base withstands; and where base withstands none, the weakest one, with a deadline for it.
    """
    full_idle, base_idle = measure(recorder, "full"), measure(recorder, "base")
    deadline_ms = round(max(HEADROOM_P50 * full_idle.p50, HEADROOM_P90 * full_idle.p90), 1)
    say(f"idle: full {full_idle}, base {base_idle}; deadline {deadline_ms} ms")
    chosen: Calibration | None = None
    for niceness in NICENESS:
        with BusyProcesses(niceness):
            base = measure(recorder, "base")
            full = measure(recorder, "full")
        say(f"load of niceness {niceness}: full {full}, base {base}")
        if base.p90 <= deadline_ms:
            chosen = Calibration(deadline_ms, niceness, full_idle, base_idle, base, full)
        elif chosen is None:
            deadline_ms = round(LATE_HEADROOM * base.p90, 1)
            chosen = Calibration(deadline_ms, niceness, full_idle, base_idle, base, full)
        else:
            break
        if full.p90 > deadline_ms:
            break
    assert chosen is not None, "the first load is always taken"
    return chosen


def measure(recorder: Recorder, depth: str) -> Latencies:
    """Latencies of the next frames at a fixed depth."""
    recorder.set_parameters(depth=depth)
    recording = recorder.start()
    needed = _SETTLE_FRAMES + _FRAMES
    recorder.spin_until(lambda: len(recording.served) >= needed, f"{needed} frames at depth {depth}", 60.0)
    times = [frame.latency_ms for frame in recording.served[_SETTLE_FRAMES:]]
    return Latencies(*np.percentile(times, [50, 90]).tolist())

"""What happened to the machine at once: another power mode, another cap of a clock, over-current events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from anydepth_perception.profile.system import Clock, SystemLoad

Side = Literal["host", "accelerator"]
"""`host` is the CPU, `accelerator` the GPU."""


@dataclass(frozen=True)
class PowerModeChange:
    """The power mode was `before` and is `after`. What it does to the clocks is told by `CapChange`."""

    before: str
    after: str

    def __str__(self) -> str:
        return f"power mode changed from {self.before} to {self.after}"


@dataclass(frozen=True)
class CapChange:
    """The highest clock that may be taken changed, MHz; of several CPU policies it is the geometric mean.

    `log_ratio` is ln(before / after): by so much the logarithm of the slowdown of what runs there is expected to rise,
    where it ran at its cap. It is below 0 where the cap rose.
    """

    side: Side
    before_mhz: float
    after_mhz: float

    @property
    def log_ratio(self) -> float:
        """ln(before / after)."""
        return math.log(self.before_mhz / self.after_mhz)

    def __str__(self) -> str:
        name = "CPU" if self.side == "host" else "GPU"
        return f"clock cap of the {name} changed from {self.before_mhz:.0f} to {self.after_mhz:.0f} MHz"


@dataclass(frozen=True)
class OverCurrent:
    """A counter of over-current events rose by `events`, at least 1."""

    counter: str
    events: int

    def __str__(self) -> str:
        return f"over-current counter {self.counter} rose by {self.events}: the power supply makes the clocks drop"


DiscreteEvent = PowerModeChange | CapChange | OverCurrent


def discrete_events(before: SystemLoad, after: SystemLoad) -> list[DiscreteEvent]:
    """What happened between two readings; a value that either of them lacks tells nothing.

    Only what is known for sure and changes at once counts, so that a controller may feed it forward. Utilisation is
    left out since it contains the own load and saturates, and current clocks and temperatures since they drift. At most
    one `CapChange` comes for each side.
    """
    events: list[DiscreteEvent] = []
    if before.power_mode is not None and after.power_mode is not None and before.power_mode != after.power_mode:
        events.append(PowerModeChange(before.power_mode, after.power_mode))
    events += _cap_changes("host", list(_caps_mhz(before, after)))
    if before.gpu_clock is not None and after.gpu_clock is not None:
        events += _cap_changes("accelerator", list(_both_caps_mhz(before.gpu_clock, after.gpu_clock)))
    for counter, count in after.over_current.items():
        rise = count - before.over_current.get(counter, count)
        if rise > 0:  # below 0 where the driver was loaded anew
            events.append(OverCurrent(counter, rise))
    return events


def _caps_mhz(before: SystemLoad, after: SystemLoad) -> Iterator[tuple[float, float]]:
    for name, clock in after.cpu_clocks.items():
        yield from _both_caps_mhz(before.cpu_clocks.get(name, Clock()), clock)


def _both_caps_mhz(before: Clock, after: Clock) -> Iterator[tuple[float, float]]:
    if before.cap_mhz is not None and after.cap_mhz is not None:
        yield before.cap_mhz, after.cap_mhz


def _cap_changes(side: Side, caps_mhz: list[tuple[float, float]]) -> list[CapChange]:
    if all(before == after for before, after in caps_mhz):
        return []
    before_mhz, after_mhz = (statistics.geometric_mean([pair[index] for pair in caps_mhz]) for index in (0, 1))
    return [CapChange(side, before_mhz, after_mhz)]

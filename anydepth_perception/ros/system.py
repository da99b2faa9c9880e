"""The load of the machine for /diagnostics: its values, and what of it calls for a warning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus

from anydepth_perception.profile.dvfs_trap import DvfsTrap
from anydepth_perception.profile.events import DiscreteEvent, OverCurrent, discrete_events
from anydepth_perception.profile.system import SystemLoad, SystemReader
from anydepth_perception.ros.diagnostics import Health


@dataclass(frozen=True)
class SystemReport:
    """One look at the machine: its load, what happened since the last look, and what is not well, if anything."""

    load: SystemLoad
    events: list[DiscreteEvent]
    warnings: list[Health]


class SystemWatch:
    """Looks at the machine at the period of diagnostics."""

    def __init__(self, root: Path = Path("/")) -> None:
        """`root` is where sys, var and etc are."""
        self._reader = SystemReader(root)
        self._trap = DvfsTrap()
        self._last: SystemLoad | None = None

    def look(self, depth_ms: float | None) -> SystemReport:
        """The machine now. `depth_ms` is that of `DvfsTrap.observe`."""
        load = self._reader.read()
        events = discrete_events(self._last, load) if self._last is not None else []
        self._last = load
        reasons = [str(event) for event in events if isinstance(event, OverCurrent)]
        trap = self._trap.observe(load, depth_ms)
        if trap is not None:
            reasons.append(trap)
        return SystemReport(load, events, [Health(DiagnosticStatus.WARN, reason) for reason in reasons])


def system_values(load: SystemLoad) -> dict[str, object]:
    """The key-value part of a status. `cpu_percent` is always there, the others where the system tells them."""
    clocks = list(load.cpu_clocks.values())
    gpu = load.gpu_clock
    values: dict[str, object] = {
        "cpu_own_percent": _percent(load.own_cpu_load),
        "cpu_core_percent": _listed([100.0 * share for share in load.core_loads]),
        "cpu_mhz": _listed([clock.mhz for clock in clocks]),
        "cpu_cap_mhz": _listed([clock.cap_mhz for clock in clocks]),
        "gpu_percent": _percent(load.gpu_load),
        "gpu_mhz": gpu.mhz if gpu is not None else None,
        "gpu_cap_mhz": gpu.cap_mhz if gpu is not None else None,
        "power_mode": load.power_mode,
    }
    values |= {f"temperature_c_{zone}": degrees for zone, degrees in load.temperatures_c.items()}
    values |= {f"over_current_{counter}": count for counter, count in load.over_current.items()}
    told = {key: value for key, value in values.items() if value is not None}
    return {"cpu_percent": _percent(load.cpu_load)} | told


def _percent(share: float | None) -> float | None:
    return 100.0 * share if share is not None else None


def _listed(values: list[float | None] | list[float]) -> str | None:
    """Whole numbers with blanks between, `-` for one that is not known; None where none is."""
    if all(value is None for value in values):
        return None
    return " ".join("-" if value is None else f"{value:.0f}" for value in values)

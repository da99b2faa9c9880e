"""The load of the whole machine: CPU, GPU, clocks and their caps, temperatures, power mode, over-current events."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from anydepth_perception.profile.files import read_number
from anydepth_perception.profile.load import CoreLoads
from anydepth_perception.profile.machine import UNKNOWN, power_mode
from anydepth_perception.profile.system_paths import SystemPaths, find_system_paths

_LOOK_AGAIN_READINGS = 60
"""Readings after which the paths are looked for again: a GPU's may appear late in a boot (jetson_stats#889)."""

_MAX_CPU_KHZ = 20_000_000
_MAX_GPU_HZ = 20_000_000_000
_COUNTER_MAX = 2**32 - 1
_COLDEST_MILLI_C, _HOTTEST_MILLI_C = -60_000, 200_000
"""A robot may work in a cold store; a zone that is off says -256 C."""


@dataclass(frozen=True)
class Clock:
    """A clock and the highest value that it may take now, MHz; None for what the system does not say."""

    mhz: float | None = None
    cap_mhz: float | None = None


@dataclass(frozen=True)
class SystemLoad:
    """One reading; None and empty stand for what the system does not say.

    Attributes:
        core_loads: busy share of each CPU in [0, 1] since the reading before, in the order of their numbers.
        own_cpu_load: share of all CPUs' time that this process took since the reading before, in [0, 1].
        cpu_clocks: of each cpufreq policy, by its name, as `policy0`.
        gpu_load: busy share of a Jetson's GPU in [0, 1].
        gpu_clock: of a Jetson's GPU.
        temperatures_c: by type of thermal zone, as `gpu-thermal`; the hottest of zones of one type.
        power_mode: as `machine.power_mode` tells it.
        over_current: events since boot by counter. On Orin, `oc1` is under-voltage, `oc2` the average and `oc3` the
            instantaneous over-current (NVIDIA's guide to Jetson Linux, power and performance of Orin).
    """

    core_loads: tuple[float, ...] = ()
    own_cpu_load: float | None = None
    cpu_clocks: Mapping[str, Clock] = field(default_factory=dict)
    gpu_load: float | None = None
    gpu_clock: Clock | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    power_mode: str | None = None
    over_current: Mapping[str, int] = field(default_factory=dict)

    @property
    def cpu_load(self) -> float | None:
        """Busy share of all CPUs in [0, 1]; None where the system does not say."""
        return sum(self.core_loads) / len(self.core_loads) if self.core_loads else None


class SystemReader:
    """Reads the machine's load about once a second, in well under 3 ms, from files alone and without root.

    Meant for a timer of diagnostics, never for a frame's path. Whatever is absent, unreadable or out of range is left
    out, and nothing is raised. One reader belongs to one thread.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        """Starts the first interval of the shares. `root` is where sys, var and etc are; psutil reads its own /proc."""
        self._root = root
        self._paths = find_system_paths(root)
        self._readings = 0
        self._cores = CoreLoads()
        self._process = _this_process()

    def read(self) -> SystemLoad:
        """The load now; shares are those since the last call."""
        paths = self._current_paths()
        return SystemLoad(
            core_loads=self._cores.sample(),
            own_cpu_load=self._own_cpu_load(),
            cpu_clocks={name: clock for name, folder in paths.policies if (clock := _cpu_clock(folder)) != Clock()},
            gpu_load=_gpu_load(paths.gpu_load),
            gpu_clock=_gpu_clock(paths.gpu),
            temperatures_c=_temperatures_c(paths),
            power_mode=mode if (mode := power_mode(self._root)) != UNKNOWN else None,
            over_current=_over_current(paths),
        )

    def _current_paths(self) -> SystemPaths:
        """Those that were found, looked for again now and then and when one vanished."""
        self._readings += 1
        if self._readings % _LOOK_AGAIN_READINGS == 0 or not all(os.path.exists(path) for path in self._paths.all):
            self._paths = find_system_paths(self._root)
        return self._paths

    def _own_cpu_load(self) -> float | None:
        if self._process is None:
            return None
        try:
            percent_of_one = self._process.cpu_percent()
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return min(1.0, max(0.0, percent_of_one / 100.0 / (os.cpu_count() or 1)))


def _this_process() -> psutil.Process | None:
    """The process itself, with its first interval started; None where the system does not say."""
    try:
        process = psutil.Process()
        process.cpu_percent()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return process


def _cpu_clock(policy: Path) -> Clock:
    current = read_number(policy / "scaling_cur_freq", 1, _MAX_CPU_KHZ)
    cap = read_number(policy / "scaling_max_freq", 1, _MAX_CPU_KHZ)
    return Clock(current / 1e3 if current is not None else None, cap / 1e3 if cap is not None else None)


def _gpu_clock(devfreq: Path | None) -> Clock | None:
    if devfreq is None:
        return None
    current = read_number(devfreq / "cur_freq", 1, _MAX_GPU_HZ)
    cap = read_number(devfreq / "max_freq", 1, _MAX_GPU_HZ)
    if current is None and cap is None:
        return None
    return Clock(current / 1e6 if current is not None else None, cap / 1e6 if cap is not None else None)


def _gpu_load(path: Path | None) -> float | None:
    permille = read_number(path, 0, 1000) if path is not None else None
    return permille / 1e3 if permille is not None else None


def _temperatures_c(paths: SystemPaths) -> dict[str, float]:
    hottest: dict[str, float] = {}
    for zone_type, path in paths.zones:
        milli_c = read_number(path, _COLDEST_MILLI_C, _HOTTEST_MILLI_C)
        if milli_c is not None:
            hottest[zone_type] = max(milli_c / 1e3, hottest.get(zone_type, float("-inf")))
    return hottest


def _over_current(paths: SystemPaths) -> dict[str, int]:
    counts = ((name, read_number(path, 0, _COUNTER_MAX)) for name, path in paths.counters)
    return {name: count for name, count in counts if count is not None}

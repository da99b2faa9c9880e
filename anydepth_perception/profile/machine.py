"""The state that this machine is in: its power mode and clocks, and how busy others keep it."""

from __future__ import annotations

import os
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from anydepth_perception.profile.files import read_number, read_text
from anydepth_perception.profile.load import CpuLoad

UNKNOWN = "unknown"
IDLE_LOAD = 0.2
"""Times count as those of an idle machine while other processes take less than this share of the CPUs."""

_MAX_CONF_BYTES = 1 << 20
_MAX_NUMBER = 10**15
_ROOT = Path("/")


@dataclass(frozen=True)
class LoadState:
    """How busy and how fast the machine was meanwhile; None and `unknown` stand for what the system does not say.

    Attributes:
        others_cpu_load: share of all CPUs' time that other processes took, in [0, 1].
        cpu_governor: what sets the CPUs' clocks; several names where the CPUs differ.
        cpu_mhz: mean clock of the CPUs.
        cpu_mhz_limit: the highest clock that the governor may choose.
        gpu_mhz: clock of a Jetson's GPU.
        clocks_pinned: whether the lowest clock allowed is the highest too, as `jetson_clocks` has it.
    """

    others_cpu_load: float | None = None
    cpu_governor: str = UNKNOWN
    cpu_mhz: float | None = None
    cpu_mhz_limit: float | None = None
    gpu_mhz: float | None = None
    clocks_pinned: bool | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the machine is known to have been idle beside this process."""
        return self.others_cpu_load is not None and self.others_cpu_load < IDLE_LOAD

    def __str__(self) -> str:
        load = UNKNOWN if self.others_cpu_load is None else f"{100 * self.others_cpu_load:.0f} %"
        parts = [f"CPU load of others {load}", f"governor {self.cpu_governor}"]
        if self.cpu_mhz is not None:
            limit = "" if self.cpu_mhz_limit is None else f" of at most {self.cpu_mhz_limit:.0f}"
            parts.append(f"CPU at {self.cpu_mhz:.0f}{limit} MHz")
        if self.gpu_mhz is not None:
            parts.append(f"GPU at {self.gpu_mhz:.0f} MHz")
        if self.clocks_pinned is not None:
            parts.append(f"clocks {'pinned' if self.clocks_pinned else 'not pinned'}")
        return ", ".join(parts)


class LoadWatch:
    """Watches the machine from its construction on."""

    def __init__(self, root: Path = _ROOT) -> None:
        """`root` is where sys is mounted."""
        self._root = root
        self._load = CpuLoad()
        self._own_s = time.process_time()
        self._started_s = time.perf_counter()

    def state(self) -> LoadState:
        """The load since the start, and the clocks as they are now: read them right after the work."""
        cpus = self._root / "sys" / "devices" / "system" / "cpu"
        governors = {read_text(path) for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
        limits = _numbers(cpus, "cpu[0-9]*/cpufreq/scaling_max_freq")
        floors = _numbers(cpus, "cpu[0-9]*/cpufreq/scaling_min_freq")
        current = _numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq")
        gpu = _numbers(self._root / "sys" / "class" / "devfreq", "*.g[apv][u0-9]*/cur_freq")
        return LoadState(
            others_cpu_load=self._others_cpu_load(),
            cpu_governor=", ".join(sorted(governors)) or UNKNOWN,
            cpu_mhz=statistics.mean(current) / 1e3 if current else _virtual_cpu_mhz(),
            cpu_mhz_limit=max(limits) / 1e3 if limits else None,
            gpu_mhz=gpu[0] / 1e6 if gpu else None,
            clocks_pinned=floors == limits if limits else None,
        )

    def _others_cpu_load(self) -> float | None:
        busy = self._load.sample()
        wall_s = time.perf_counter() - self._started_s
        if busy is None or wall_s <= 0.0:
            return None
        own = (time.process_time() - self._own_s) / (wall_s * (os.cpu_count() or 1))
        return min(1.0, max(0.0, busy - own))


def power_mode(root: Path = _ROOT) -> str:
    """The power mode: by nvpmodel's name and number on a Jetson, else the firmware's platform profile.

    A Jetson keeps the number of its mode in /var/lib/nvpmodel/status and the modes' names in /etc/nvpmodel.conf.
    """
    status = re.search(r"pmode:\s*(\d{1,9})", read_text(root / "var" / "lib" / "nvpmodel" / "status"))
    if status is None:
        profile = read_text(root / "sys" / "firmware" / "acpi" / "platform_profile")
        return profile if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", profile) else UNKNOWN
    number = int(status[1])
    modes = read_text(root / "etc" / "nvpmodel.conf", _MAX_CONF_BYTES)
    named = re.search(rf"<\s*POWER_MODEL\s+ID\s*=\s*0*{number}\s+NAME\s*=\s*(\S{{1,40}})", modes)
    return f"{named[1].rstrip('>')} (nvpmodel {number})" if named else f"nvpmodel {number}"


def _virtual_cpu_mhz() -> float | None:
    """Mean clock where nothing governs it, as in a virtual machine; None where the system does not say."""
    try:
        clocks = psutil.cpu_freq()
    except (OSError, ValueError, NotImplementedError, AttributeError):  # psutil leaves it out where it finds nothing
        return None
    return clocks.current if clocks is not None and clocks.current > 0.0 else None


def _numbers(folder: Path, pattern: str) -> list[int]:
    numbers = [read_number(path, 0, _MAX_NUMBER) for path in sorted(folder.glob(pattern))]
    return [number for number in numbers if number is not None]

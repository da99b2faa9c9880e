"""Where this machine keeps its clocks, loads, temperatures and over-current counters, under an injectable root.

Paths of Jetson Orin: the GPU is `17000000.ga10b` in JetPack 5 and `17000000.gpu` in JetPack 6 and 7. Its load lies at
the device of its devfreq, or at a fixed path (jetson_stats#360, autoware_universe#11326). The counters belong to the
hwmon `soctherm_oc` of /sys/devices/platform/soctherm-oc-event (NVIDIA's driver tegra23x-oc-event).
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from anydepth_perception.profile.files import read_text

_POLICIES = "sys/devices/system/cpu/cpufreq/policy[0-9]*"
_GPU_DEVFREQS = ("*gpu*", "*.ga10b", "*.gv11b", "*.gp10b")
_GPU_LOADS = (
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/bus@0/17000000.gpu/load",
    "sys/devices/platform/17000000.gpu/load",
    "sys/devices/platform/17000000.ga10b/load",
    "sys/devices/gpu.0/load",
)
_ZONES = "sys/class/thermal/thermal_zone[0-9]*"
_COUNTERS = (
    "sys/class/hwmon/hwmon*/oc[0-9]*_event_cnt",
    "sys/devices/platform/*soctherm-oc-event*/hwmon/hwmon*/oc[0-9]*_event_cnt",
)
_ZONE_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:+-]{0,39}")


@dataclass(frozen=True)
class SystemPaths:
    """What there is to read; whatever a machine lacks is empty.

    Attributes:
        policies: folder of each cpufreq policy by its name, in the order of its first CPU.
        gpu: folder of the GPU's devfreq.
        gpu_load: file with the GPU's load in permille.
        zones: type and `temp` file of each thermal zone.
        counters: file of each over-current counter by its short name, as `oc1`.
    """

    policies: tuple[tuple[str, Path], ...] = ()
    gpu: Path | None = None
    gpu_load: Path | None = None
    zones: tuple[tuple[str, Path], ...] = ()
    counters: tuple[tuple[str, Path], ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file and folder that is there to be read; one that vanished calls for a new look."""
        named = (*self.policies, *self.zones, *self.counters)
        return (*(path for _, path in named), *(path for path in (self.gpu, self.gpu_load) if path is not None))


def find_system_paths(root: Path) -> SystemPaths:
    """Looks for what there is below `root`; folders that cannot be listed count as empty."""
    devfreqs = [path for name in _GPU_DEVFREQS for path in _glob(root, f"sys/class/devfreq/{name}")]
    gpu = devfreqs[0] if devfreqs else None
    beside = [gpu / "device" / "load", gpu / "load"] if gpu is not None else []
    loads = [path for path in (*beside, *(root / load for load in _GPU_LOADS)) if _exists(path)]
    counters: dict[str, Path] = {}
    for pattern in _COUNTERS:
        for path in _glob(root, pattern):
            counters.setdefault(path.name.removesuffix("_event_cnt"), path)
    return SystemPaths(
        policies=tuple((path.name, path) for path in _glob(root, _POLICIES)),
        gpu=gpu,
        gpu_load=loads[0] if loads else None,
        zones=tuple(
            (zone_type, folder / "temp")
            for folder in _glob(root, _ZONES)
            if _ZONE_TYPE.fullmatch(zone_type := read_text(folder / "type")) and _exists(folder / "temp")
        ),
        counters=tuple(sorted(counters.items())),
    )


def _glob(root: Path, pattern: str) -> list[Path]:
    """Paths that fit, in the order of the numbers in them; unlike pathlib's, this glob swallows every OSError."""
    return [root / found for found in sorted(glob.glob(pattern, root_dir=root), key=_by_number)]


def _by_number(text: str) -> list[tuple[str, int]]:
    return [(word, int(number or 0)) for word, number in re.findall(r"([^0-9]*)([0-9]*)", text)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False

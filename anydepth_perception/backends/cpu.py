"""How many CPU threads an inference engine should take on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path


def physical_core_count(sysfs: Path = Path("/sys")) -> int:
    """Physical cores this process may use: its CPU affinity, hyper-threads counted once, within its cgroup's quota."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_thread_siblings(sysfs, cpu) for cpu in cpus}
    quota = _cgroup_quota(sysfs)
    return max(1, len(cores) if math.isinf(quota) else min(len(cores), math.ceil(quota)))


def _thread_siblings(sysfs: Path, cpu: int) -> str:
    path = sysfs / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    try:
        return path.read_text().strip() or str(cpu)
    except OSError:
        return str(cpu)


def _cgroup_quota(sysfs: Path) -> float:
    """CPUs' worth of time that a container's limit grants (cgroup v2); infinite without a limit."""
    try:
        quota, period = (sysfs / "fs" / "cgroup" / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf

"""The CPU of this machine: how many threads an inference engine should take, and what tells it from others."""

from __future__ import annotations

import hashlib
import math
import os
import platform
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


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name by which the CPU, or on ARM the board, calls itself."""
    named = _cpuinfo(cpuinfo)
    return named.get("model name") or named.get("Model") or platform.processor() or platform.machine()


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The instruction sets of the CPU, sorted, in words separated by spaces; empty where the system does not tell."""
    named = _cpuinfo(cpuinfo)
    return " ".join(sorted((named.get("flags") or named.get("Features") or "").split()))


def describe_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model, architecture and a digest of the features: engines are built for one such description."""
    digest = hashlib.sha256(cpu_features(cpuinfo).encode()).hexdigest()[:16]
    return f"{cpu_model(cpuinfo)} ({platform.machine()}, features {digest})"


def _cpuinfo(path: Path) -> dict[str, str]:
    """What is said of the first CPU that says it."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    named: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        named.setdefault(key.strip(), value.strip())
    return named

"""The machine's state, read from stand-ins for the files of a Jetson and of a laptop."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from anydepth_perception.profile.machine import UNKNOWN, LoadState, LoadWatch, power_mode

NVPMODEL_CONF = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=7W >
< POWER_MODEL ID=11 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=0 >
"""


class SimpleCpuTimes(NamedTuple):
    """What psutil tells at the least."""

    user: float
    idle: float


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_jetson(root: Path, *, floor_khz: int = 1510400) -> None:
    """Stand-in for the files of a Jetson Orin Nano; no test here has seen a real one."""
    write(root / "var/lib/nvpmodel/status", "pmode:0001")
    write(root / "etc/nvpmodel.conf", NVPMODEL_CONF)
    for cpu in range(2):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        write(folder / "scaling_governor", "schedutil\n")
        write(folder / "scaling_cur_freq", "1200000\n")
        write(folder / "scaling_max_freq", "1510400\n")
        write(folder / "scaling_min_freq", f"{floor_khz}\n")
    write(root / "sys/class/devfreq/17000000.gpu/cur_freq", "624750000\n")
    write(root / "sys/class/devfreq/17000000.emc/cur_freq", "2133000000\n")


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that tells psutil nothing; the power mode and the clocks are read from stand-in files."""

    def refuse() -> None:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [("pmode:0001", "7W (nvpmodel 1)"), ("pmode:0011\n", "MAXN_SUPER (nvpmodel 11)"), ("pmode:0005", "nvpmodel 5")],
)
def test_stand_in_jetson_has_the_power_mode_of_nvpmodel(tmp_path: Path, status: str, expected: str) -> None:
    write_jetson(tmp_path)
    write(tmp_path / "var/lib/nvpmodel/status", status)
    assert power_mode(tmp_path) == expected


def test_power_mode_of_a_laptop_is_its_platform_profile(tmp_path: Path) -> None:
    write(tmp_path / "sys/firmware/acpi/platform_profile", "low-power\n")
    assert power_mode(tmp_path) == "low-power"


def test_power_mode_is_unknown_where_nothing_tells(tmp_path: Path) -> None:
    assert power_mode(tmp_path) == UNKNOWN


def test_clocks_of_the_stand_in_jetson_are_read(tmp_path: Path) -> None:
    write_jetson(tmp_path)
    state = LoadWatch(tmp_path).state()
    assert (state.cpu_governor, state.cpu_mhz, state.cpu_mhz_limit) == ("schedutil", 1200.0, 1510.4)
    assert state.gpu_mhz == 624.75


@pytest.mark.parametrize(("floor_khz", "pinned"), [(1510400, True), (115200, False)])
def test_clocks_are_pinned_where_the_lowest_is_the_highest(tmp_path: Path, floor_khz: int, pinned: bool) -> None:
    write_jetson(tmp_path, floor_khz=floor_khz)
    assert LoadWatch(tmp_path).state().clocks_pinned is pinned


def test_clock_of_a_virtual_machine_is_what_psutil_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2500.5, min=0.0, max=0.0))
    assert LoadWatch(tmp_path).state().cpu_mhz == 2500.5


def test_nothing_is_claimed_where_the_system_tells_nothing(tmp_path: Path) -> None:
    assert LoadWatch(tmp_path).state() == LoadState()


def test_clock_is_unknown_where_psutil_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "cpu_freq")
    assert LoadWatch(tmp_path).state().cpu_mhz is None


def test_damaged_files_are_unknown(tmp_path: Path) -> None:
    write_jetson(tmp_path)
    for file in ("scaling_cur_freq", "scaling_max_freq", "scaling_min_freq"):
        for cpu in range(2):
            write(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/{file}", "<unsupported>\n")
    write(tmp_path / "var/lib/nvpmodel/status", "\0\0")
    state = LoadWatch(tmp_path).state()
    assert (state.cpu_mhz, state.cpu_mhz_limit, state.clocks_pinned) == (None, None, None)
    assert power_mode(tmp_path) == UNKNOWN


def test_load_of_others_leaves_out_what_this_process_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, wall = iter((10.0, 11.0)), iter((100.0, 101.0))
    monkeypatch.setattr("anydepth_perception.profile.machine.time.process_time", lambda: next(own))
    monkeypatch.setattr("anydepth_perception.profile.machine.time.perf_counter", lambda: next(wall))
    monkeypatch.setattr("anydepth_perception.profile.machine.os.cpu_count", lambda: 2)
    told = iter((SimpleCpuTimes(10.0, 10.0), SimpleCpuTimes(11.5, 10.5)))
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(told))
    watch = LoadWatch(tmp_path)
    # Three quarters of both CPUs, of which this process had a half.
    assert watch.state().others_cpu_load == pytest.approx(0.25)


@pytest.mark.parametrize(("load", "idle"), [(0.0, True), (0.19, True), (0.2, False), (None, False)])
def test_machine_is_idle_below_a_fifth_and_never_by_ignorance(load: float | None, idle: bool) -> None:
    assert LoadState(others_cpu_load=load).is_idle is idle


def test_state_is_told_in_words() -> None:
    assert str(LoadState()) == "CPU load of others unknown, governor unknown"
    state = LoadState(0.04, "schedutil", 1200.0, 1510.4, 624.75, True)
    assert str(state) == (
        "CPU load of others 4 %, governor schedutil, CPU at 1200 of at most 1510 MHz, GPU at 625 MHz, clocks pinned"
    )

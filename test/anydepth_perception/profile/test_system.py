"""The load of the machine, read from the stand-in for an Orin's files, whole and damaged, and from this machine."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in_orin import FILES, GPU, HWMON, POLICIES, THERMAL, write, write_orin

from anydepth_perception.profile.files import read_number, read_text
from anydepth_perception.profile.system import Clock, SystemLoad, SystemReader

GARBAGE = ("", "\n", "abc", "-1", "-256000", "9" * 30, "1.5", "0x10", "12 34", "\0\0", "٣٤", "x" * 100_000)

VALUES = ("cpu_clocks", "gpu_load", "gpu_clock", "temperatures_c", "power_mode", "over_current")
"""What comes from files below the root."""

FOLDERS = {
    "sys/devices/system/cpu": "cpu_clocks",
    f"{GPU}/device": "gpu_load",
    GPU: "gpu_clock",
    THERMAL: "temperatures_c",
    HWMON: "over_current",
    "var/lib/nvpmodel": "power_mode",
    "etc": "power_mode",
}
"""Which value the files of a folder are for; the first that fits counts."""


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    write_orin(tmp_path)
    return tmp_path


def of_files(load: SystemLoad) -> dict[str, object]:
    return {value: getattr(load, value) for value in VALUES}


def expect_others_are_read(orin: Path, name: str, whole: dict[str, object]) -> None:
    """Whatever the file is not for is as in `whole`, what was read before."""
    affected = next((value for folder, value in FOLDERS.items() if name.startswith(folder)), None)
    for value, told in of_files(SystemReader(orin).read()).items():
        assert told == whole[value] or value == affected, value


def test_orin_is_read_with_its_units(orin: Path) -> None:
    load = SystemReader(orin).read()
    assert load.cpu_clocks == {"policy0": Clock(1190.4, 1728.0), "policy4": Clock(729.6, 1497.6)}
    assert (load.gpu_load, load.gpu_clock) == (0.437, Clock(624.75, 1020.0))
    assert load.temperatures_c == {"cpu-thermal": 50.437, "gpu-thermal": 49.125}
    assert load.power_mode == "MAXN_SUPER (nvpmodel 2)"
    assert load.over_current == {"oc1": 0, "oc3": 37}


def test_gpu_of_jetpack_5_is_found_by_its_chip(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/devfreq/17000000.ga10b/cur_freq", "306000000")
    assert SystemReader(tmp_path).read().gpu_clock == Clock(306.0, None)


@pytest.mark.parametrize("name", [
    f"{GPU}/load", "sys/devices/platform/gpu.0/load", "sys/devices/platform/bus@0/17000000.gpu/load",
    "sys/devices/gpu.0/load",
])
def test_load_of_the_gpu_is_found_at_its_other_places(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "1000\n")
    assert SystemReader(tmp_path).read().gpu_load == 1.0


def test_counters_are_found_at_the_platform_device(tmp_path: Path) -> None:
    write(tmp_path, "sys/devices/platform/soctherm-oc-event/hwmon/hwmon1/oc2_event_cnt", "5\n")
    assert SystemReader(tmp_path).read().over_current == {"oc2": 5}


def test_hottest_of_the_zones_of_one_type_counts(tmp_path: Path) -> None:
    for zone, milli_c in enumerate((27_800, 61_000, 40_000)):
        write(tmp_path, f"{THERMAL}/thermal_zone{zone}/type", "acpitz")
        write(tmp_path, f"{THERMAL}/thermal_zone{zone}/temp", str(milli_c))
    assert SystemReader(tmp_path).read().temperatures_c == {"acpitz": 61.0}


def test_cold_store_is_below_zero(tmp_path: Path) -> None:
    write(tmp_path, f"{THERMAL}/thermal_zone0/type", "tj-thermal")
    write(tmp_path, f"{THERMAL}/thermal_zone0/temp", "-24500")
    assert SystemReader(tmp_path).read().temperatures_c == {"tj-thermal": -24.5}


def test_platform_profile_is_the_power_mode_of_a_laptop(tmp_path: Path) -> None:
    write(tmp_path, "sys/firmware/acpi/platform_profile", "balanced\n")
    assert SystemReader(tmp_path).read().power_mode == "balanced"


def test_machine_without_any_of_it_tells_only_its_cpu(tmp_path: Path) -> None:
    load = SystemReader(tmp_path).read()
    assert of_files(load) == of_files(SystemLoad())


@pytest.mark.parametrize("name", FILES)
def test_missing_file_leaves_the_others_read(orin: Path, name: str) -> None:
    whole = of_files(SystemReader(orin).read())
    (orin / name).unlink()
    expect_others_are_read(orin, name, whole)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", FILES)
def test_garbage_leaves_the_others_read(orin: Path, name: str, garbage: str) -> None:
    whole = of_files(SystemReader(orin).read())
    write(orin, name, garbage)
    expect_others_are_read(orin, name, whole)


@pytest.mark.parametrize("name", FILES)
def test_folder_or_stuck_pipe_in_place_of_a_file_leaves_the_others_read(orin: Path, name: str) -> None:
    whole = of_files(SystemReader(orin).read())
    (orin / name).unlink()
    (orin / name).mkdir()
    expect_others_are_read(orin, name, whole)
    (orin / name).rmdir()
    os.mkfifo(orin / name)
    expect_others_are_read(orin, name, whole)


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENODEV, errno.EIO])
@pytest.mark.parametrize("name", FILES)
def test_refused_file_leaves_the_others_read(
    orin: Path, name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of_files(SystemReader(orin).read())
    real = os.open

    def refuse(path: Path | str, flags: int) -> int:
        if str(path) == str(orin / name):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags)

    monkeypatch.setattr("anydepth_perception.profile.files.os.open", refuse)
    expect_others_are_read(orin, name, whole)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_absent(orin: Path, garbage: str) -> None:
    for name in (f"{GPU}/device/load", f"{GPU}/cur_freq", f"{HWMON}/oc3_event_cnt", "var/lib/nvpmodel/status"):
        write(orin, name, garbage)
    load = SystemReader(orin).read()
    assert (load.gpu_load, load.over_current, load.power_mode) == (None, {"oc1": 0}, None)
    assert load.gpu_clock == Clock(None, 1020.0)


def test_load_above_a_thousand_permille_is_absent(orin: Path) -> None:
    write(orin, f"{GPU}/device/load", "1001")
    assert SystemReader(orin).read().gpu_load is None


def test_damage_of_one_clock_leaves_its_cap_and_the_other_policy(orin: Path) -> None:
    write(orin, f"{POLICIES}/policy0/scaling_cur_freq", "<unknown>")
    assert SystemReader(orin).read().cpu_clocks == {"policy0": Clock(None, 1728.0), "policy4": Clock(729.6, 1497.6)}


def test_sensor_that_is_off_is_left_out(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the zones cv0 to cv2 of an Orin Nano: reading them says EAGAIN."""

    def off(descriptor: int, size: int) -> bytes:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("anydepth_perception.profile.files.os.read", off)
    assert read_text(orin / f"{THERMAL}/thermal_zone2/temp") == ""


def test_files_are_read_again_each_time(orin: Path) -> None:
    reader = SystemReader(orin)
    reader.read()
    write(orin, f"{GPU}/device/load", "12")
    assert reader.read().gpu_load == 0.012


def test_file_that_vanishes_midway_is_absent_and_its_new_place_is_found(orin: Path) -> None:
    reader = SystemReader(orin)
    shutil.move(orin / HWMON, orin / "sys/class/hwmon/hwmon5")
    shutil.rmtree(orin / POLICIES / "policy4")
    load = reader.read()
    assert load.over_current == {"oc1": 0, "oc3": 37} and list(load.cpu_clocks) == ["policy0"]


def test_gpu_that_appears_late_is_found_within_a_minute(orin: Path) -> None:
    shutil.move(orin / GPU, orin / "later")
    reader = SystemReader(orin)
    assert reader.read().gpu_clock is None
    shutil.move(orin / "later", orin / GPU)
    assert any(reader.read().gpu_clock is not None for _ in range(60))


def test_cpu_of_this_machine_is_told_in_shares() -> None:
    reader = SystemReader()
    load = SystemLoad()
    deadline_s = time.monotonic() + 10.0
    while not load.core_loads and time.monotonic() < deadline_s:
        load = reader.read()
    assert len(load.core_loads) == psutil.cpu_count()
    assert all(0.0 <= share <= 1.0 for share in load.core_loads)
    assert load.own_cpu_load is not None and 0.0 <= load.own_cpu_load <= 1.0
    assert load.cpu_load == pytest.approx(sum(load.core_loads) / len(load.core_loads))


@pytest.mark.parametrize("error", [FileNotFoundError("/proc/stat"), ValueError("abc"), psutil.AccessDenied()])
def test_files_are_read_where_psutil_tells_nothing(
    orin: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    monkeypatch.setattr(psutil.Process, "cpu_percent", refuse)
    load = SystemReader(orin).read()
    assert (load.core_loads, load.cpu_load, load.own_cpu_load) == ((), None, None)
    assert load.gpu_load == 0.437


@given(st.binary(max_size=80))
def test_number_is_within_its_range_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "number"
    path.write_bytes(content)
    number = read_number(path, 1, 1000)
    assert number is None or 1 <= number <= 1000


@given(st.integers(1, 10**12), st.sampled_from(["", "\n", " \n"]))
def test_number_in_its_range_is_read(tmp_path_factory: pytest.TempPathFactory, number: int, end: str) -> None:
    path = tmp_path_factory.getbasetemp() / "number"
    path.write_text(f"{number}{end}")
    assert read_number(path, 1, 10**12) == number

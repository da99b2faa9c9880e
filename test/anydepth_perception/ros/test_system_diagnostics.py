"""The load of the machine as diagnostics tell it; needs the ROS message packages."""

from __future__ import annotations

from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from stand_in_orin import GPU, HWMON, THERMAL, write, write_orin

from anydepth_perception.profile.events import CapChange
from anydepth_perception.profile.system import Clock, SystemLoad
from anydepth_perception.ros.messages import key_values
from anydepth_perception.ros.system import SystemWatch, system_values


def texts(load: SystemLoad) -> dict[str, str]:
    return {item.key: item.value for item in key_values(system_values(load))}


def test_values_of_the_orin_have_units_in_their_keys(tmp_path: Path) -> None:
    write_orin(tmp_path)
    values = texts(SystemWatch(tmp_path).look(None).load)
    assert values.items() >= {
        "cpu_mhz": "1190 730",
        "cpu_cap_mhz": "1728 1498",
        "gpu_percent": "43.700",
        "gpu_mhz": "624.750",
        "gpu_cap_mhz": "1020.000",
        "power_mode": "MAXN_SUPER (nvpmodel 2)",
        "temperature_c_cpu-thermal": "50.437",
        "temperature_c_gpu-thermal": "49.125",
        "over_current_oc1": "0",
        "over_current_oc3": "37",
    }.items()


def test_shares_of_the_cpu_are_percentages() -> None:
    values = texts(SystemLoad(core_loads=(0.25, 1.0), own_cpu_load=0.5))
    assert values == {"cpu_percent": "62.500", "cpu_own_percent": "50.000", "cpu_core_percent": "25 100"}


def test_only_what_exists_has_a_key_beside_the_load_of_the_cpu() -> None:
    assert texts(SystemLoad()) == {"cpu_percent": ""}


def test_clock_that_is_not_known_is_a_dash_among_others() -> None:
    load = SystemLoad(cpu_clocks={"policy0": Clock(1200.0, None), "policy4": Clock(None, None)})
    assert texts(load) == {"cpu_percent": "", "cpu_mhz": "1200 -"}


def test_quiet_machine_has_no_warning(tmp_path: Path) -> None:
    write_orin(tmp_path)
    watch = SystemWatch(tmp_path)
    watch.look(None)
    write(tmp_path, f"{GPU}/device/load", "990")
    write(tmp_path, f"{THERMAL}/thermal_zone0/temp", "90000")
    report = watch.look(None)
    assert (report.events, report.warnings) == ([], [])


def test_over_current_warns_once_with_its_counter(tmp_path: Path) -> None:
    write_orin(tmp_path)
    watch = SystemWatch(tmp_path)
    assert watch.look(None).warnings == []
    write(tmp_path, f"{HWMON}/oc3_event_cnt", "39")
    (warning,) = watch.look(None).warnings
    assert warning.level == DiagnosticStatus.WARN
    assert warning.reason.startswith("over-current counter oc3 rose by 2") and "\n" not in warning.reason
    assert watch.look(None).warnings == []


def test_change_of_a_cap_is_an_event_and_no_warning(tmp_path: Path) -> None:
    write_orin(tmp_path)
    watch = SystemWatch(tmp_path)
    watch.look(None)
    write(tmp_path, f"{GPU}/max_freq", "612000000")
    report = watch.look(None)
    (event,) = report.events
    assert isinstance(event, CapChange) and event.side == "accelerator" and report.warnings == []


def test_dvfs_trap_warns_with_the_remedy(tmp_path: Path) -> None:
    write_orin(tmp_path)
    watch = SystemWatch(tmp_path)
    for depth_ms in (31.0, 31.0, 31.0):
        watch.look(depth_ms)
    write(tmp_path, f"{GPU}/cur_freq", "306000000")
    warnings = [watch.look(22.0).warnings for _ in range(3)]
    assert warnings[:2] == [[], []]
    assert warnings[2][0].level == DiagnosticStatus.WARN and "jetson_clocks" in warnings[2][0].reason

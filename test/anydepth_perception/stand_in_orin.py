"""Stand-in for the files of a Jetson Orin Nano with JetPack 6; no test here has seen a real one."""

from __future__ import annotations

from pathlib import Path

GPU = "sys/class/devfreq/17000000.gpu"
POLICIES = "sys/devices/system/cpu/cpufreq"
THERMAL = "sys/class/thermal"
HWMON = "sys/class/hwmon/hwmon3"

NVPMODEL_CONF = """
< POWER_MODEL ID=0 NAME=15W >
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""

FILES = {
    f"{POLICIES}/policy0/scaling_cur_freq": "1190400\n",
    f"{POLICIES}/policy0/scaling_max_freq": "1728000\n",
    f"{POLICIES}/policy4/scaling_cur_freq": "729600\n",
    f"{POLICIES}/policy4/scaling_max_freq": "1497600\n",
    f"{GPU}/cur_freq": "624750000\n",
    f"{GPU}/max_freq": "1020000000\n",
    f"{GPU}/device/load": "437\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
    f"{THERMAL}/thermal_zone0/temp": "50437\n",
    f"{THERMAL}/thermal_zone1/type": "gpu-thermal\n",
    f"{THERMAL}/thermal_zone1/temp": "49125\n",
    f"{THERMAL}/thermal_zone2/type": "cv0-thermal\n",
    f"{THERMAL}/thermal_zone2/temp": "",
    f"{HWMON}/oc1_event_cnt": "0\n",
    f"{HWMON}/oc1_throt_en": "1\n",
    f"{HWMON}/oc3_event_cnt": "37\n",
    "var/lib/nvpmodel/status": "pmode:0002",
    "etc/nvpmodel.conf": NVPMODEL_CONF,
}


def write(root: Path, name: str, text: str) -> None:
    """Writes one file below `root`."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_orin(root: Path) -> None:
    """Writes `FILES` below `root`."""
    for name, text in FILES.items():
        write(root, name, text)

"""Nothing leaves the robot: no name is looked up, and only the package's own cache is written to the home folder.

Done with real processes in a network namespace without a route, where a name server writes down what it is asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = ROOT / "test" / "anydepth_perception" / "offline_probe.py"
ALONE = ("unshare", "--map-root-user", "--net", "--mount")

DETECT = """
import sys, time
import numpy as np
import anydepth_perception as ap
detector = ap.load(sys.argv[1], backend=sys.argv[2])
detector(np.zeros((48, 64, 3), np.uint8))
time.sleep(3)  # what is sent is sent by a thread of its own
"""

LOOK_UP = "import socket\ntry: socket.getaddrinfo('robot.example', 80)\nexcept OSError: pass"


def is_allowed() -> bool:
    """Whether this user may have namespaces of his own; some distributions and containers forbid it."""
    return shutil.which("unshare") is not None and subprocess.run([*ALONE, "true"], check=False).returncode == 0


def environment(home: Path) -> dict[str, str]:
    """That of a user who has set nothing: no switch of telemetry is inherited from the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def files_in(home: Path) -> list[str]:
    """Top folders of what a process has written, below .cache by one more."""
    found = {path.relative_to(home).parts for path in home.rglob("*") if path.is_file()}
    return sorted({"/".join(parts[: 2 if parts[0] == ".cache" else 1]) for parts in found})


def probe(home: Path, seconds: float, *command: str) -> dict[str, Any]:
    if not is_allowed():
        pytest.skip("this user may not have a network namespace of his own, so look-ups cannot be seen")
    result = subprocess.run(
        [*ALONE, sys.executable, str(PROBE), str(seconds), *command],
        cwd=ROOT, env=environment(home), capture_output=True, text=True, timeout=120, check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_a_look_up_is_seen(tmp_path: Path) -> None:
    assert probe(tmp_path, 20.0, sys.executable, "-c", LOOK_UP)["asked"] == ["robot.example"]


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.needs("openvino"))])
def test_a_detector_in_a_program_asks_for_no_name(tiny_bundle_path: Path, tmp_path: Path, backend: str) -> None:
    found = probe(tmp_path, 60.0, sys.executable, "-c", DETECT, str(tiny_bundle_path), backend)
    assert found["code"] == 0, found["output"]
    assert found["asked"] == []
    assert files_in(tmp_path) == [".cache/anydepth_perception"]


def test_the_node_asks_for_no_name(tiny_bundle_path: Path, tmp_path: Path) -> None:
    parameters = ["-p", f"model:={tiny_bundle_path}", "-p", "backend:=onnxruntime"]
    found = probe(tmp_path, 12.0, sys.executable, "-m", "anydepth_perception.ros", "--ros-args", *parameters)
    assert found["code"] == 0, found["output"]
    assert "activate: done" in found["output"]
    assert found["asked"] == []
    assert files_in(tmp_path) == [".cache/anydepth_perception", ".ros"]


def test_without_namespaces_too_nothing_but_the_cache_is_written(tiny_bundle_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DETECT, str(tiny_bundle_path), "onnxruntime"]
    subprocess.run(command, cwd=ROOT, env=environment(tmp_path), check=True, timeout=120)
    assert files_in(tmp_path) == [".cache/anydepth_perception"]


def test_the_switch_is_set_before_any_library_of_both_halves(tmp_path: Path) -> None:
    code = "import os, {package}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for package in ("anydepth_perception.backends.onnxruntime", "training"):
        command = [sys.executable, "-c", code.format(package=package)]
        output = subprocess.check_output(command, cwd=ROOT, env=environment(tmp_path), timeout=120)
        assert output.strip() == b"1"

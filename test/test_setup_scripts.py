"""The set-up names what is missing in one line, and trusts an environment only by its stamp."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("runtime", "ros", "training", "development")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what the set-up works on to a place with no environment and no cache."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("scripts", "requirements", "overlay"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def setup_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Import the set-up with its folders below a temporary one and every subprocess a success."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    import setup_environment

    monkeypatch.setattr(setup_environment, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(setup_environment, "check_python", lambda distribution: None)
    monkeypatch.setattr(setup_environment, "link_project", lambda folder: None)
    monkeypatch.setattr(setup_environment, "can_import", lambda python, *modules: True)
    return setup_environment


@pytest.fixture
def environment(setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple:
    """Give an environment and the list that grows each time it is made."""
    made: list[Path] = []

    def create(environment, *_: object) -> None:
        environment.folder.mkdir(exist_ok=True)
        made.append(environment.folder)

    monkeypatch.setattr(setup_module, "create", create)
    return setup_module.Environment(tmp_path / "environment", ("runtime",), ("numpy",)), made


def run_setup(checkout: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run the set-up of a copied checkout with the interpreter that environments are made from."""
    kept = {name: value for name, value in os.environ.items() if name not in ("ROS_DISTRO", "PYTHONPATH")}
    base_python = str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
    return subprocess.run(
        [base_python, "scripts/setup_environment.py", "runtime"],
        cwd=checkout,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("variable", "name"), [("CC", "C compiler"), ("CXX", "C++ compiler")])
def test_a_missing_compiler_is_named_in_one_line(checkout: Path, variable: str, name: str) -> None:
    done = run_setup(checkout, **{variable: "no-such-compiler"})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"no {name}" in done.stderr
    assert "apt install build-essential" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_distribution_without_rclpy_is_named_in_one_line(checkout: Path) -> None:
    done = run_setup(checkout, ROS_DISTRO="jazzy")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ROS jazzy is sourced but" in done.stderr


@pytest.mark.parametrize(
    ("interpreter", "message"),
    [
        ("#!/bin/sh\nexit 127\n", "cannot be run"),
        ('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10\n[ -z "$2" ]\n', "Python 3.8.10 is too old"),
    ],
)
def test_a_missing_or_old_python_is_named_in_one_line(checkout: Path, interpreter: str, message: str) -> None:
    python = checkout / "python"
    python.write_text(interpreter)
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "setup-runtime", f"PYTHON={python}"],
        cwd=checkout,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert len(said) == 1
    assert message in said[0]


def test_an_environment_is_made_once(setup_module: ModuleType, environment: tuple) -> None:
    target, made = environment
    setup_module.set_up(target)
    setup_module.set_up(target)
    assert len(made) == 1


def test_an_environment_that_lost_a_package_is_made_again(
    setup_module: ModuleType, environment: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, made = environment
    setup_module.set_up(target)
    answers = iter([False, True])
    monkeypatch.setattr(setup_module, "can_import", lambda python, *modules: next(answers))
    setup_module.set_up(target)
    assert len(made) == 2


def test_an_interrupted_environment_is_made_again(
    setup_module: ModuleType, environment: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, made = environment
    complete = setup_module.create

    def interrupted(*arguments: object) -> None:
        complete(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_module, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setup_module.set_up(target)
    monkeypatch.setattr(setup_module, "create", complete)
    setup_module.set_up(target)
    assert len(made) == 2


@pytest.mark.parametrize(("version", "numpy"), [("1.21.5", ["numpy==1.26.4"]), ("1.26.4", []), ("2.3.5", [])])
def test_a_distribution_keeps_a_numpy_that_fits_its_messages(
    setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, numpy: list[str]
) -> None:
    monkeypatch.setattr(setup_module.importlib.metadata, "version", lambda name: version)
    lock = tmp_path / "lock.txt"
    lock.write_text("# comment\nnumpy==2.4.6 ; python_version < '3.12'\nnumpy==2.5.5\npyyaml==6.0.3\nonnx==1.23.2\n")
    assert setup_module.requirements_of([lock], "humble") == [*numpy, "onnx==1.23.2"]
    assert len(setup_module.requirements_of([lock], None)) == 4


def lock_lines(name: str) -> list[str]:
    """Read the requirements of one lock file."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_exactly(name: str) -> None:
    assert [line for line in lock_lines(name) if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line)] == []


def test_locks_agree_with_each_other() -> None:
    versions: dict[tuple[str, str], set[str]] = {}
    for name in LOCKS:
        for line in lock_lines(name):
            requirement, _, marker = line.partition(" ; ")
            project, _, version = requirement.partition("==")
            versions.setdefault((project, marker), set()).add(version)
    assert {key: found for key, found in versions.items() if len(found) > 1} == {}


def test_only_the_training_lock_has_torch() -> None:
    assert "torch==2.13.0" in lock_lines("training")
    for name in ("runtime", "ros", "development"):
        assert not [line for line in lock_lines(name) if line.startswith("torch")]


def test_no_lock_has_gpu_packages() -> None:
    assert not [line for name in LOCKS for line in lock_lines(name) if line.startswith(("nvidia", "triton", "cuda"))]

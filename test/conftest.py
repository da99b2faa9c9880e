"""Fixtures shared by all tests."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest

# Some tests import ONNX Runtime before the package, which would set it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Tests run from the source tree whether or not the package is installed; the tiny bundle is made by a helper module.
_TEST_FOLDER = Path(__file__).resolve().parent
for _folder in (_TEST_FOLDER / "anydepth_perception", _TEST_FOLDER / "training", _TEST_FOLDER.parent):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

with contextlib.suppress(ImportError):  # the run-time environment goes without
    from hypothesis import settings

    # A loaded machine may take long over one example; that says nothing about the code.
    settings.register_profile("project", deadline=None)
    settings.load_profile("project")


ON_DDS = ("e2e", "ros", "test_bench_frames.py", "test_bench_transport.py", "test_bench.py")
"""Folders and files whose tests start ROS nodes."""


ON_A_ROBOT = importlib.util.find_spec("torch") is None
"""There `colcon test` runs what the installed packages allow: neither the training half nor processes over DDS."""

_LEFT_OUT: dict[str, set[str]] = {}


def missing_imports(path: Path) -> set[str]:
    """Top packages that a test file imports and this Python does not have; helpers beside the tests count as had."""
    nodes = ast.parse(path.read_text()).body
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    roots = {name.partition(".")[0] for name in names}
    helpers = {file.stem for file in path.parent.glob("*.py")}
    return {name for name in roots - helpers if importlib.util.find_spec(name) is None}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """On a robot, leaves out what cannot run there; `pytest_terminal_summary` tells what."""
    if not ON_A_ROBOT:
        return None
    if collection_path.is_dir():
        return (collection_path.parent == _TEST_FOLDER and collection_path.name in ("training", "e2e", "gpu")) or None
    if not collection_path.name.startswith("test_"):
        return None
    missing = missing_imports(collection_path)
    if missing:
        _LEFT_OUT[collection_path.name] = missing
    return bool(missing) or None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out on a robot."""
    if ON_A_ROBOT:
        terminalreporter.write_line("no torch here: tests of training, of processes over DDS and of GPUs are left out")
        for name, missing in sorted(_LEFT_OUT.items()):
            terminalreporter.write_line(f"{name} is left out: it needs {', '.join(sorted(missing))}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where two processes share the tests, a file's stay together, and only one process at a time starts ROS nodes."""
    for item in items:
        wanted = {package for marker in item.iter_markers("needs") for package in marker.args}
        missing = {package for package in wanted if importlib.util.find_spec(package) is None}
        if ON_A_ROBOT and missing:
            item.add_marker(pytest.mark.skip(f"needs {', '.join(sorted(missing))}"))
        group = "ros" if set(ON_DDS) & set(item.path.parts) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tiny_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny valid bundle, shared by the tests of a run: read it, don't change it."""
    from tiny_bundle import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny.anydepth").path

"""Fixtures shared by all tests."""

from __future__ import annotations

import contextlib
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where two processes share the tests, a file's stay together, and only one process at a time starts ROS nodes."""
    for item in items:
        group = "ros" if set(ON_DDS) & set(item.path.parts) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tiny_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny valid bundle, shared by the tests of a run: read it, don't change it."""
    from tiny_bundle import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny.anydepth").path

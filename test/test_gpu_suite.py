"""Tests that need a GPU never pass for lack of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_without_a_gpu_they_fail_and_say_that_they_were_not_run() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "test/gpu", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # on a machine that has one
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (result.returncode, "the GPU tests were NOT run: " in result.stdout + result.stderr) == (3, True)


def test_they_are_not_among_the_other_tests(request: pytest.FixtureRequest) -> None:
    assert "gpu" in request.config.getini("norecursedirs")
    assert not [item.nodeid for item in request.session.items if "test/gpu" in item.nodeid]

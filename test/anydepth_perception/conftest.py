"""Simulated drivers and releases of TensorRT, for tests that need no GPU."""

from __future__ import annotations

import sys
import types

import pytest
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import RELEASES, Install, simulate

from anydepth_perception.backends import cuda as cuda_module
from anydepth_perception.backends.tensorrt import TensorRtBackend


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    """An NVIDIA driver with one GPU."""
    driver = SimulatedCuda((8, 6))
    monkeypatch.setattr(cuda_module.ctypes, "CDLL", lambda name: driver)
    return driver


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, driver: SimulatedCuda) -> Install:
    """Puts a simulated release in the place of those that are installed."""

    def install_release(name: str, version: str) -> types.ModuleType:
        module = simulate(name, version, driver)
        for other in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(sys.modules, other, module if other == name else None)
        return module

    return install_release


@pytest.fixture(params=RELEASES)
def trt(request: pytest.FixtureRequest, install: Install) -> types.ModuleType:
    """Each release in turn."""
    return install(*RELEASES[request.param])


@pytest.fixture
def trt10(install: Install) -> types.ModuleType:
    return install(*RELEASES["10"])


@pytest.fixture
def tensorrt(trt: types.ModuleType) -> TensorRtBackend:
    """The backend, on each release in turn."""
    return TensorRtBackend("float32")

"""These tests need a GPU with TensorRT or TensorRT-RTX; without one the run fails and says so, instead of passing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.aisle import AisleScene
from anydepth_perception.backends.tensorrt import TensorRtBackend, tensorrt_problem
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.detection.preprocess import Preprocessor


def pytest_sessionstart() -> None:
    problem = tensorrt_problem()
    if problem is not None:
        pytest.exit(f"the GPU tests were NOT run: {problem}", returncode=3)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A Jetson takes minutes to build an engine; its system's Python need not have pytest-timeout."""
    if config.pluginmanager.hasplugin("timeout"):
        for item in items:
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def timing_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spares the tests measuring the same kernels again."""
    return tmp_path_factory.mktemp("timings") / "timings"


@pytest.fixture(scope="session")
def float32(timing_cache: Path) -> TensorRtBackend:
    return TensorRtBackend("float32", timing_cache=timing_cache)


@pytest.fixture(scope="session")
def float16(timing_cache: Path) -> TensorRtBackend:
    return TensorRtBackend("float16", timing_cache=timing_cache)


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return Bundle.load(find_bundle("aisle-yolo-t"))


@pytest.fixture(scope="session")
def image(shipped: Bundle) -> np.ndarray:
    """An aisle at network size, uint8 [1, H, W, 3]."""
    size = shipped.manifest.input
    preprocess = Preprocessor(size.height, size.width)
    preprocess(AisleScene(0, 640, 480).render(0.0).image)
    return preprocess.buffer

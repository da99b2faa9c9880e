"""Fixtures of the end-to-end tests: a DDS domain of their own, processes that never stay behind, an observer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from ros_processes import Observer, Process, runtime_python

from anydepth_perception.ros.qos import use_image_profile


@pytest.fixture(scope="session", autouse=True)
def ros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One ROS context for the run, in a domain that other runs on the machine most likely don't use.

    All nodes share a cache folder, which is not the user's.
    """
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    use_image_profile()
    rclpy.init()
    yield
    rclpy.shutdown()


Start = Callable[..., Process]


def _starter(folder: Path) -> tuple[Start, list[Process]]:
    processes: list[Process] = []

    def start(*arguments: str, environment: dict[str, str] | None = None) -> Process:
        process = Process([runtime_python(), *arguments], folder / f"process_{len(processes)}.log", environment)
        processes.append(process)
        return process

    return start, processes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts Python with the given arguments in the run-time environment; killed after the test."""
    start, processes = _starter(tmp_path)
    yield start
    for process in processes:
        process.kill()


@pytest.fixture(scope="module")
def module_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """As `start`, for processes that several tests of a module share."""
    start, processes = _starter(tmp_path_factory.mktemp("processes"))
    yield start
    for process in processes:
        process.kill()


@pytest.fixture
def observer() -> Iterator[Observer]:
    """A node of this process that talks to the detector."""
    observer = Observer()
    yield observer
    observer.close()


@pytest.fixture(scope="session")
def node_arguments(tiny_bundle_path: Path) -> Callable[..., list[str]]:
    """Command line of the detector node with the tiny bundle and further parameters.

    The backend is named, because `auto` warns where a TensorRT is installed that does not work.
    """
    defaults = {"model": str(tiny_bundle_path), "backend": "onnxruntime"}

    def arguments(**parameters: Any) -> list[str]:
        line = ["-m", "anydepth_perception.ros", "--ros-args"]
        for name, value in {**defaults, **parameters}.items():
            line += ["-p", f"{name}:={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"]
        return line

    return arguments

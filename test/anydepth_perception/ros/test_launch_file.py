"""The launch file, run against a minimal stand-in for `launch` and `launch_ros`.

Neither is on the Python package index, so what is tested here is this file's own logic: its arguments, the
parameters and command lines it makes of them, and the image profile. That the real `launch` accepts it is not shown.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[3]
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


class Recorded:
    """Any launch action: keeps what it was made with."""

    def __init__(self, *arguments, **options):
        self.arguments, self.options = arguments, options


class DeclareLaunchArgument(Recorded):
    pass


class SetEnvironmentVariable(Recorded):
    pass


class OpaqueFunction(Recorded):
    pass


class Node(Recorded):
    pass


class LaunchDescription:
    def __init__(self, entities):
        self.entities = entities


class LaunchConfiguration:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context[self.name]


class ParameterValue:
    def __init__(self, value, value_type):
        assert isinstance(value, value_type)
        self.value = value


@pytest.fixture
def launch_file(monkeypatch):
    """The module of the launch file, with share/ being the source tree."""
    stand_ins = {
        "launch": {"LaunchDescription": LaunchDescription, "LaunchContext": dict},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "OpaqueFunction": OpaqueFunction,
            "SetEnvironmentVariable": SetEnvironmentVariable,
        },
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
        "launch_ros.parameter_descriptions": {"ParameterValue": ParameterValue},
        "ament_index_python": {},
        "ament_index_python.packages": {"get_package_share_directory": lambda package: str(ROOT)},
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    spec = importlib.util.spec_from_file_location("detector_launch", ROOT / "launch" / "detector.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launched(launch_file, **given: str) -> SimpleNamespace:
    """What a launch with these arguments makes: the environment and the nodes by executable."""
    entities = launch_file.generate_launch_description().entities
    declared = {
        entity.arguments[0]: entity.options["default_value"]
        for entity in entities
        if isinstance(entity, DeclareLaunchArgument)
    }
    assert set(given) <= set(declared)
    environment = dict(entity.arguments for entity in entities if isinstance(entity, SetEnvironmentVariable))
    (function,) = [entity.options["function"] for entity in entities if isinstance(entity, OpaqueFunction)]
    nodes = {node.options["executable"]: node.options for node in function({**declared, **given})}
    return SimpleNamespace(declared=declared, environment=environment, nodes=nodes)


def parameters_of(options: dict) -> dict:
    """The parameters given beside the file, as plain values."""
    (values,) = [item for item in options["parameters"] if isinstance(item, dict)]
    return {name: value.value if isinstance(value, ParameterValue) else value for name, value in values.items()}


def test_all_agreed_arguments_are_declared(launch_file):
    agreed = "namespace params_file image_topics image_transport model backend depth deadline_ms use_sim_time autostart"
    assert {*agreed.split(), "log_level", "camera"} <= set(launched(launch_file).declared)


def test_without_arguments_the_parameter_file_decides(launch_file):
    result = launched(launch_file)
    assert set(result.nodes) == {"detector_node"}
    node = result.nodes["detector_node"]
    assert node["name"] == "detector" and node["parameters"][0] == str(ROOT / "config" / "detector.yaml")
    assert parameters_of(node) == {"use_sim_time": False}


def test_given_arguments_reach_the_node_in_the_types_of_its_parameters(launch_file):
    result = launched(
        launch_file,
        namespace="robot",
        image_topics="left/image_raw,right/image_raw",
        deadline_ms="50",
        depth="FFEE.FFEE",
        model="/bundles/some: bundle",
        autostart="false",
        use_sim_time="true",
        log_level="debug",
    )
    node = result.nodes["detector_node"]
    assert parameters_of(node) == {
        "image_topics": ["left/image_raw", "right/image_raw"],
        "deadline_ms": 50.0,
        "depth": "FFEE.FFEE",
        "model": "/bundles/some: bundle",
        "autostart": False,
        "use_sim_time": True,
    }
    assert node["namespace"] == "robot" and node["ros_arguments"] == ["--log-level", "debug"]


def test_camera_publishes_what_the_node_subscribes_to(launch_file):
    result = launched(
        launch_file, camera="aisle", image_topics="front/image_raw", image_transport="compressed",
        camera_arguments="--rate 30 --frame-id 'front camera'", namespace="robot",
    )
    camera = result.nodes["camera"]
    assert camera["arguments"] == [
        *("--source", "aisle", "--topic", "front/image_raw"),
        *("--rate", "30", "--frame-id", "front camera", "--compressed"),
    ]
    assert camera["namespace"] == "robot"


def test_image_profile_is_set_for_both_names_of_the_variable(launch_file):
    environment = launched(launch_file).environment
    assert set(environment) == set(VARIABLES)
    assert all(Path(path).is_file() for path in environment.values())


def test_profile_that_the_user_chose_stays(launch_file, monkeypatch):
    monkeypatch.setitem(os.environ, VARIABLES[0], "/chosen.xml")
    assert launched(launch_file).environment == {}

"""The launch file, run against a minimal stand-in for `launch` and `launch_ros`.

Neither is on the Python package index, so what is tested here is this file's own logic: its arguments, the
parameters and command lines it makes of them, and the image profile. The real `launch` has been tried by hand.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from anydepth_perception.serving.settings import DEFAULTS, Settings

ROOT = Path(__file__).resolve().parents[3]
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


class Recorded:
    """Any launch action: keeps what it was made with."""

    def __init__(self, *arguments, **options):
        self.arguments, self.options = arguments, options


class DeclareLaunchArgument(Recorded):
    pass


class Shutdown(Recorded):
    pass


class OpaqueFunction(Recorded):
    pass


class Node(Recorded):
    pass


class IncludeLaunchDescription(Recorded):
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


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_launch", ROOT / "launch" / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch_file(monkeypatch):
    """The module of the launch file, with share/ being the source tree."""
    stand_ins = {
        "launch": {"LaunchDescription": LaunchDescription, "LaunchContext": dict},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "IncludeLaunchDescription": IncludeLaunchDescription,
            "OpaqueFunction": OpaqueFunction,
            "Shutdown": Shutdown,
        },
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": lambda path: path},
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
    return load("detector")


def launched(launch_file, **given: str) -> SimpleNamespace:
    """What a launch with these arguments makes: the nodes by name."""
    entities = launch_file.generate_launch_description().entities
    declared = {
        entity.arguments[0]: entity.options["default_value"]
        for entity in entities
        if isinstance(entity, DeclareLaunchArgument)
    }
    assert set(given) <= set(declared)
    (function,) = [entity.options["function"] for entity in entities if isinstance(entity, OpaqueFunction)]
    nodes = {node.options["name"]: node.options for node in function({**declared, **given})}
    return SimpleNamespace(declared=declared, nodes=nodes)


def parameters_of(options: dict) -> dict:
    """The parameters given beside the file, as plain values."""
    given = [item for item in options["parameters"] if isinstance(item, dict)]
    return {
        name: value.value if isinstance(value, ParameterValue) else value
        for values in given
        for name, value in values.items()
    }


@pytest.fixture
def params_file(tmp_path) -> str:
    path = tmp_path / "robot.yaml"
    path.write_text(
        "/**:\n  ros__parameters: {image_topics: [left/image_raw, right/image_raw], use_sim_time: true}\n"
        "detector:\n  ros__parameters: {image_transport: compressed}\n"
        "camera:\n  ros__parameters: {image_topics: [not/for/us]}\n"
    )
    return str(path)


def test_all_agreed_arguments_are_declared(launch_file):
    agreed = "namespace params_file image_topics image_transport model backend depth deadline_ms use_sim_time autostart"
    assert {*agreed.split(), "log_level", "camera", "respawn"} <= set(launched(launch_file).declared)


def test_without_arguments_nothing_is_set_so_that_an_including_file_may(launch_file):
    result = launched(launch_file)
    assert set(result.nodes) == {"detector"}
    assert result.nodes["detector"]["parameters"] == []
    assert not result.nodes["detector"]["respawn"] and "on_exit" not in result.nodes["detector"]


def test_given_arguments_reach_the_node_in_the_types_of_its_parameters(launch_file, params_file):
    result = launched(
        launch_file,
        namespace="robot",
        params_file=params_file,
        image_topics="left/image_raw,right/image_raw",
        deadline_ms="50",
        depth="FFEE.FFEE",
        model="/bundles/some: bundle",
        autostart="false",
        use_sim_time="true",
        log_level="debug",
        respawn="true",
    )
    node = result.nodes["detector"]
    assert node["parameters"][0] == params_file
    assert parameters_of(node) == {
        "image_topics": ["left/image_raw", "right/image_raw"],
        "deadline_ms": 50.0,
        "depth": "FFEE.FFEE",
        "model": "/bundles/some: bundle",
        "autostart": False,
        "use_sim_time": True,
    }
    assert node["namespace"] == "robot" and node["ros_arguments"] == ["--log-level", "debug"] and node["respawn"]


def test_a_parameter_file_may_lie_in_the_home_folder(launch_file, params_file, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(params_file).parent))
    assert launched(launch_file, params_file="~/robot.yaml").nodes["detector"]["parameters"] == [params_file]


def test_camera_publishes_what_the_node_subscribes_to(launch_file):
    result = launched(
        launch_file, camera="aisle", image_topics="front/image_raw", image_transport="compressed",
        camera_arguments="--rate 30 --frame-id 'front camera'", namespace="robot",
    )
    camera = result.nodes["camera"]
    assert camera["arguments"] == [
        *("--source", "aisle", "--topic", "front/image_raw", "--wait"),
        *("--rate", "30", "--frame-id", "front camera", "--compressed"),
    ]
    assert camera["namespace"] == "robot" and camera["parameters"] == []


def test_each_topic_of_a_parameter_file_gets_a_camera_on_the_same_clock(launch_file, params_file):
    nodes = launched(launch_file, camera="aisle", params_file=params_file).nodes
    assert set(nodes) == {"detector", "camera", "camera_1"}
    for name, topic in (("camera", "left/image_raw"), ("camera_1", "right/image_raw")):
        assert nodes[name]["arguments"] == ["--source", "aisle", "--topic", topic, "--wait", "--compressed"]
        assert parameters_of(nodes[name]) == {"use_sim_time": True}
    on_wall_time = launched(launch_file, camera="aisle", params_file=params_file, use_sim_time="false").nodes
    assert parameters_of(on_wall_time["camera"]) == parameters_of(on_wall_time["detector"]) == {"use_sim_time": False}


def test_exit_on_error_ends_the_launch_with_the_detector(launch_file):
    node = launched(launch_file, exit_on_error="true").nodes["detector"]
    assert isinstance(node["on_exit"], Shutdown)
    assert parameters_of(node) == {"exit_on_error": True}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"params_file": "/no/such.yaml"}, "params_file: there is no file /no/such.yaml"),
        ({"use_sim_time": "foo"}, "use_sim_time must be true or false; got 'foo'"),
        ({"respawn": "twice"}, "respawn must be true or false"),
        ({"camera": "aisle", "camera_arguments": '"--rate'}, "camera_arguments: '\"--rate' cannot be split"),
    ],
)
def test_what_cannot_be_meant_ends_the_launch_and_names_the_argument(launch_file, given, said):
    with pytest.raises(RuntimeError) as error:
        launched(launch_file, **given)
    assert said in str(error.value)


def test_a_parameter_file_that_is_no_yaml_is_named(launch_file, tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RuntimeError, match=r"bad\.yaml cannot be read"):
        launched(launch_file, params_file=str(tmp_path / "bad.yaml"), camera="aisle")


def test_image_profile_is_set_for_both_names_of_the_variable_and_for_our_nodes_alone(launch_file):
    nodes = launched(launch_file, camera="aisle").nodes
    for node in nodes.values():
        assert set(node["additional_env"]) == set(VARIABLES)
        assert all(Path(path).is_file() for path in node["additional_env"].values())


def test_profile_that_the_user_chose_stays(launch_file, monkeypatch):
    monkeypatch.setitem(os.environ, VARIABLES[0], "/chosen.xml")
    assert launched(launch_file).nodes["detector"]["additional_env"] == {}


@pytest.mark.parametrize("name", ["demo", "multi_camera"])
def test_launch_files_beside_it_include_it_with_arguments_that_it_has(launch_file, name):
    entities = load(name).generate_launch_description().entities
    (include,) = [entity for entity in entities if isinstance(entity, IncludeLaunchDescription)]
    assert Path(include.arguments[0]) == ROOT / "launch" / "detector.launch.py"
    declared = launched(launch_file).declared
    assert {argument for argument, _ in include.options["launch_arguments"]} <= set(declared)


@pytest.mark.parametrize("preset", sorted((ROOT / "config" / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_are_valid_and_differ_from_the_defaults(preset):
    values = yaml.safe_load(preset.read_text())["/**"]["ros__parameters"]
    settings = Settings.from_values(values)
    assert {name: getattr(settings, name) for name in values} == values
    assert all(values[name] != DEFAULTS[name] for name in values if name != "late_policy")

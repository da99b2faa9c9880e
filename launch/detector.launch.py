"""Starts the detector node, and a camera beside it where a source is named."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from anydepth_perception.ros.qos import PROFILE_VARIABLES
from anydepth_perception.serving.settings import DEFAULTS, TABLE, typed

PACKAGE = "anydepth_perception"
PARAMETER_ARGUMENTS = (
    "image_topics", "image_transport", "model", "backend", "depth", "deadline_ms", "camera_deadlines_ms", "execution",
    "autostart",
)
"""Parameters that are launch arguments too; one left empty keeps what params_file says."""

OTHER_ARGUMENTS = {
    "namespace": "Namespace of the nodes.",
    "params_file": "Parameter file, as config/detector.yaml. Empty: the defaults of the node.",
    "use_sim_time": "true: take the time from /clock. Empty: as in params_file, or as the including file sets it.",
    "log_level": "debug, info, warn, error or fatal.",
    "respawn": "true: start a node again that has ended by a fault.",
    "exit_on_error": "true: end all of this launch where the detector cannot be configured, for autostart.",
    "camera": "Also start a camera for each image topic: aisle, a video, a folder, a recording or /dev/videoN.",
    "camera_arguments": "Further arguments of the camera, as '--rate 30 --loop'.",
}
_DEFAULTS = {"log_level": "info", "respawn": "false", "exit_on_error": "false"}


def generate_launch_description() -> LaunchDescription:
    """The arguments and the nodes."""
    descriptions = {name: f"{TABLE[name].description} Empty: as in params_file." for name in PARAMETER_ARGUMENTS}
    arguments = [
        DeclareLaunchArgument(name, default_value=_DEFAULTS.get(name, ""), description=description)
        for name, description in {**OTHER_ARGUMENTS, **descriptions}.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    file = _parameter_file(value("params_file"))
    given = {name: typed(name, value(name)) for name in PARAMETER_ARGUMENTS if value(name)}
    use_sim_time = {"use_sim_time": _flag("use_sim_time", value("use_sim_time"))} if value("use_sim_time") else {}
    exits = _flag("exit_on_error", value("exit_on_error"))
    common = {
        "package": PACKAGE,
        "namespace": value("namespace"),
        "output": "screen",
        "emulate_tty": True,
        "respawn": _flag("respawn", value("respawn")),
        "respawn_delay": 2.0,
        "additional_env": _image_profile(),
        "ros_arguments": ["--log-level", value("log_level")],
    }
    parameters = {**{name: _as_is(item) for name, item in given.items()}, **use_sim_time}
    if exits:
        parameters["exit_on_error"] = True
    nodes = [
        Node(
            executable="detector_node",
            name="detector",
            parameters=[*([str(file)] if file is not None else []), *([parameters] if parameters else [])],
            **({"on_exit": Shutdown(reason="the detector has ended")} if exits else {}),
            **common,
        )
    ]
    if value("camera"):
        known = {**_parameters_in(file, value("namespace")), **given}
        words = _words("camera_arguments", value("camera_arguments"))
        nodes += _cameras(value("camera"), words, {**known, **use_sim_time}, common)
    return nodes


def _cameras(source: str, words: list[str], known: Mapping[str, Any], common: dict[str, Any]) -> list[Node]:
    """A camera for each topic that the detector subscribes to; it waits for the detector, so that no image is lost."""
    topics = known.get("image_topics") or list(DEFAULTS["image_topics"])
    compressed = ["--compressed"] if known.get("image_transport") == "compressed" else []
    return [
        Node(
            executable="camera",
            name="camera" if index == 0 else f"camera_{index}",
            arguments=["--source", source, "--topic", topic, "--wait", *words, *compressed],
            parameters=[{"use_sim_time": known["use_sim_time"]}] if "use_sim_time" in known else [],
            **common,
        )
        for index, topic in enumerate(topics)
    ]


def _image_profile() -> dict[str, str]:
    """Lets Fast DDS hold images in shared memory, in our nodes alone, unless the user has chosen a profile file."""
    if any(variable in os.environ for variable in PROFILE_VARIABLES):
        return {}
    path = str(Path(get_package_share_directory(PACKAGE)) / "config" / "fastdds_images.xml")
    return dict.fromkeys(PROFILE_VARIABLES, path)


def _parameter_file(text: str) -> Path | None:
    """The file, which launch_ros itself would leave out with a warning where it is missing."""
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise RuntimeError(f"params_file: there is no file {path}")
    return path


def _parameters_in(file: Path | None, namespace: str) -> dict[str, Any]:
    """What a parameter file says of the detector: under /**, under its name, and under its name with the namespace."""
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RuntimeError(f"params_file: {file} cannot be read: {' '.join(str(error).split())}") from error
    names = ("/**", "detector", "/detector", f"/{namespace.strip('/')}/detector")
    found: dict[str, Any] = {}
    for name in names:
        section = content.get(name) if isinstance(content, dict) else None
        found |= (section or {}).get("ros__parameters") or {}
    return found


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise RuntimeError(f"{name} must be true or false; got {text!r}")
    return text.lower() in ("true", "1")


def _words(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise RuntimeError(f"{name}: {text!r} cannot be split into words: {error}") from error


def _as_is(value: Any) -> Any:
    """Keeps launch from reading a text such as a path or a depth as YAML."""
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value

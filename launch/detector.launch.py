"""Starts the detector node, and a camera beside it where a source is named."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from anydepth_perception.ros.qos import PROFILE_VARIABLES
from anydepth_perception.serving.settings import DEFAULTS, TABLE, typed

PACKAGE = "anydepth_perception"
PARAMETER_ARGUMENTS = (
    "image_topics", "image_transport", "model", "backend", "depth", "deadline_ms", "camera_deadlines_ms", "autostart"
)
"""Parameters that are launch arguments too; one left empty keeps what params_file says."""


def generate_launch_description() -> LaunchDescription:
    """The arguments, the image profile of the middleware, and the nodes."""
    share = Path(get_package_share_directory(PACKAGE))
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the nodes."),
        DeclareLaunchArgument(
            "params_file", default_value=str(share / "config" / "detector.yaml"), description="Parameter file."
        ),
        *(
            DeclareLaunchArgument(
                name, default_value="", description=f"{TABLE[name].description} Empty: as in params_file."
            )
            for name in PARAMETER_ARGUMENTS
        ),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock."),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal."),
        DeclareLaunchArgument(
            "camera",
            default_value="",
            description="Also start a camera: aisle, a video file, a folder of images or /dev/videoN. Empty: none.",
        ),
        DeclareLaunchArgument(
            "camera_arguments", default_value="", description="Further arguments of the camera, as '--rate 30 --loop'."
        ),
    ]
    return LaunchDescription([*arguments, *_image_profile(share), OpaqueFunction(function=_nodes)])


def _image_profile(share: Path) -> list[SetEnvironmentVariable]:
    """Lets Fast DDS hold images in shared memory, unless the user has chosen a profile file."""
    if any(variable in os.environ for variable in PROFILE_VARIABLES):
        return []
    path = str(share / "config" / "fastdds_images.xml")
    return [SetEnvironmentVariable(variable, path) for variable in PROFILE_VARIABLES]


def _as_is(value: Any) -> Any:
    """Keeps launch from reading a text such as a path or a depth as YAML."""
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value


def _nodes(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    given = {name: typed(name, value(name)) for name in PARAMETER_ARGUMENTS if value(name)}
    use_sim_time = {"use_sim_time": value("use_sim_time").lower() in ("true", "1")}
    common = {
        "package": PACKAGE,
        "namespace": value("namespace"),
        "output": "screen",
        "emulate_tty": True,
        "ros_arguments": ["--log-level", value("log_level")],
    }
    nodes = [
        Node(
            executable="detector_node",
            name="detector",
            parameters=[value("params_file"), {**{name: _as_is(item) for name, item in given.items()}, **use_sim_time}],
            **common,
        )
    ]
    if value("camera"):
        topic = given.get("image_topics", list(DEFAULTS["image_topics"]))[0]
        arguments = ["--source", value("camera"), "--topic", topic, *shlex.split(value("camera_arguments"))]
        if given.get("image_transport") == "compressed":
            arguments.append("--compressed")
        nodes.append(Node(executable="camera", name="camera", arguments=arguments, parameters=[use_sim_time], **common))
    return nodes

"""One detector for several cameras: their topics and deadlines in one line each."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ARGUMENTS = {
    "image_topics": ("front/image_raw,left/image_raw,right/image_raw", "Image topics, with commas between."),
    "camera_deadlines_ms": ("60,90,90", "Deadlines, one for each of image_topics; 0 is none."),
    "params_file": ("", "Parameter file. Empty: the defaults of the node."),
    "camera": ("", "aisle and the like: also start a camera for each topic."),
}


def generate_launch_description() -> LaunchDescription:
    """The detector, and cameras where a source is named."""
    folder = Path(get_package_share_directory("anydepth_perception")) / "launch"
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=text)
                for name, (value, text) in ARGUMENTS.items()
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(folder / "detector.launch.py")),
                launch_arguments={name: LaunchConfiguration(name) for name in ARGUMENTS}.items(),
            ),
        ]
    )

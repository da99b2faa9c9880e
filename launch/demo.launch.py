"""The detector with a drawn warehouse aisle for a camera: everything to look at without any hardware."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ARGUMENTS = {
    "deadline_ms": ("80.0", "From camera stamp to published detections, milliseconds."),
    "execution": ("staged", "staged: depth may change within a frame; whole: only when it begins."),
    "rate": ("15", "Images a second."),
}


def generate_launch_description() -> LaunchDescription:
    """The camera and the detector."""
    folder = Path(get_package_share_directory("anydepth_perception")) / "launch"
    given = {name: LaunchConfiguration(name) for name in ("deadline_ms", "execution")}
    words = ["--prerender 10 --ground-truth --rate ", LaunchConfiguration("rate")]
    camera = {"camera": "aisle", "camera_arguments": words}
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=text)
                for name, (value, text) in ARGUMENTS.items()
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(folder / "detector.launch.py")),
                launch_arguments={**given, **camera}.items(),
            ),
        ]
    )

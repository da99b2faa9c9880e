"""A camera for tests and demos: a ROS node, and the sources that its images come from."""

from anydepth_perception.tools.interrupt import end_quietly_until_running


def main() -> None:
    """Runs the camera; see `anydepth_perception.tools.camera.node`."""
    end_quietly_until_running()
    from anydepth_perception.tools.camera.node import main as run

    run()

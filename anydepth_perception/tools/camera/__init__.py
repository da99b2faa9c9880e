"""A camera for tests and demos: a ROS node, and the sources that its images come from."""


def main() -> None:
    """Runs the camera; see `anydepth_perception.tools.camera.node`."""
    from anydepth_perception.tools.camera.node import main as run

    run()

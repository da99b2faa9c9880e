"""Measurements of the robot half: frames, executions, the node's start, and the transport of images."""


def main() -> None:
    """Runs the measurement of frames; see `anydepth_perception.tools.bench.frames`."""
    from anydepth_perception.tools.bench.frames import main as run

    run()

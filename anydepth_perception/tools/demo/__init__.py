"""The demo: a camera and the detector as two processes over DDS, a CPU load in the middle, and what came of it."""


def main() -> None:
    """Runs the demo; see `anydepth_perception.tools.demo.command`."""
    from anydepth_perception.tools.demo.command import main as run

    run()

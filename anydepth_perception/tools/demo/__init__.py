"""The demo: a camera and the detector as two processes over DDS, a CPU load in the middle, and what came of it."""

from anydepth_perception.tools.interrupt import INTERRUPTED, end_quietly_until_running


def main() -> None:
    """Runs the demo; see `anydepth_perception.tools.demo.command`."""
    end_quietly_until_running(INTERRUPTED)
    from anydepth_perception.tools.demo.command import main as run

    run()

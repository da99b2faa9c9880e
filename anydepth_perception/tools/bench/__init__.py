"""`bench`: measurements of the robot half, without torch: frames, executions, the node's start, transport of images."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the measurements; see `anydepth_perception.tools.bench.command`."""
    from anydepth_perception.tools.bench.command import main as run

    run(arguments)

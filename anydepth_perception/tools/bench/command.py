"""Measures frames, executions, the node's start or the transport of images; the last line of output is JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from anydepth_perception.tools.arguments import fail

FRAMES = "frames"
MEASUREMENTS = {
    FRAMES: "inference per rung, host time per frame, and transport; what is measured where none is named",
    "execution": "what depth on demand costs: staged over whole, a change of depth, memory, long runs",
    "deadline": "the depth control: made-up loads, recorded times, and the node under a load, which needs ROS",
    "cameras": "how several cameras share a node that cannot serve all they send; needs ROS",
    "start": "seconds from the start of the node's process to the first detections; needs ROS",
    "transport": "images between two processes, with the shipped DDS profile and without; needs ROS",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the measurement that the first word names, `frames` where it is an option or nothing."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, FRAMES)
    name = _parser().parse_args(words[:1]).measurement
    # Each is imported when it is asked for: some of them need ROS, which the others go without.
    if name == FRAMES:
        from anydepth_perception.tools.bench.frames import main as measure
    elif name == "execution":
        from anydepth_perception.tools.bench.execution import main as measure
    elif name == "deadline":
        from anydepth_perception.tools.bench.deadline import main as measure
    else:
        try:
            if name == "cameras":
                from anydepth_perception.tools.bench.cameras import main as measure
            elif name == "start":
                from anydepth_perception.tools.bench.start import main as measure
            else:
                from anydepth_perception.tools.bench.transport import main as measure
        except ImportError as error:
            fail(f"bench {name} needs ROS: {error}")
    measure(words[1:])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        usage="bench [-h] [MEASUREMENT] [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="measurements:\n"
        + "\n".join(f"  {name:<12}{what}" for name, what in MEASUREMENTS.items())
        + "\n\n`bench MEASUREMENT --help` lists the options of one.",
    )
    parser.add_argument("measurement", metavar="MEASUREMENT", choices=tuple(MEASUREMENTS), help="one of those below")
    return parser

"""The executable of the node `detector`: ends quietly on a signal, from the first moment on."""

from __future__ import annotations

import argparse
import os
import signal
import sys


def main(args: list[str] | None = None) -> None:
    """Runs the node until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # until `run_node` takes over, there is nothing to put in order
    # A second bound behind `max_image_pixels`, which OpenCV reads when it is imported.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
    from anydepth_perception.backends.host_memory import use_few_arenas

    use_few_arenas()
    from anydepth_perception.ros.node import DetectorNode
    from anydepth_perception.ros.process import own_arguments, run_node

    parser = argparse.ArgumentParser(
        prog="detector_node",
        description="The node `detector`: images in, vision_msgs detections out, at the depth that meets the deadline.",
        epilog="Parameters are given as everywhere in ROS: --ros-args -p deadline_ms:=50.0 --params-file FILE.",
    )
    parser.parse_args(own_arguments(args))
    sys.exit(run_node(DetectorNode, args, before_spin=DetectorNode.autostart))


if __name__ == "__main__":
    main()

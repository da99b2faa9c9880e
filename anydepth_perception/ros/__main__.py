"""The executable of the node `detector`: ends quietly on a signal, from the first moment on."""

from __future__ import annotations

import os
import signal
import sys


def main(args: list[str] | None = None) -> None:
    """Runs the node until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # until `run_node` takes over, there is nothing to put in order
    # A second bound behind `max_image_pixels`, which OpenCV reads when it is imported.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
    from anydepth_perception.ros.node import DetectorNode
    from anydepth_perception.ros.process import run_node

    sys.exit(run_node(DetectorNode, args, before_spin=DetectorNode.autostart))


if __name__ == "__main__":
    main()

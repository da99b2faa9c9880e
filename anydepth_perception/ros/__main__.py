"""The executable of the node `detector`: ends quietly on a signal, from the first moment on."""

from __future__ import annotations

import os
import signal
import sys


def main(args: list[str] | None = None) -> None:
    """Runs the node until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # until `run_node` takes over, there is nothing to put in order
    from anydepth_perception.backends.host_memory import use_few_arenas

    use_few_arenas()
    from anydepth_perception.ros.node import DetectorNode
    from anydepth_perception.ros.process import run_node

    sys.exit(run_node(DetectorNode, args, before_spin=DetectorNode.autostart))


if __name__ == "__main__":
    main()

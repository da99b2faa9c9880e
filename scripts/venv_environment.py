"""Environment of every process started from one of the project's virtual environments.

The set-up copies this file into site-packages as `anydepth_environment.py` and names it in a
`.pth` file, so that `python -m anydepth_perception...` and pytest work with nothing to source.
"""

from __future__ import annotations

import os
import sys


def prefer(variable: str, folder: str) -> None:
    """Put `folder` first in a colon-separated variable, once."""
    others = [part for part in os.environ.get(variable, "").split(os.pathsep) if part and part != folder]
    os.environ[variable] = os.pathsep.join([folder, *others])


def wheels_need_their_own_start() -> bool:
    """Tell whether the ROS wheels were set up by a parent that runs from another environment.

    They re-execute Python once to set LD_LIBRARY_PATH and mark that as done for all children,
    which is wrong for a child that runs from an environment of its own.
    """
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return os.path.join(sys.prefix, "lib") not in libraries


prefer("AMENT_PREFIX_PATH", sys.prefix)
if wheels_need_their_own_start():
    os.environ.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)

"""What the tools take from the environment and set in it: the time of a measurement, a ROS domain of their own."""

from __future__ import annotations

import math
import os


def bench_seconds(text: str, default: float) -> float:
    """The time to spend, from the text of BENCH_SECONDS; empty means the default.

    Raises:
        ValueError: it is not a number above 0.
    """
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"BENCH_SECONDS is {text!r}, expected a number of seconds above 0")
    return seconds


def use_own_ros_domain(*, unless_chosen: bool = False) -> None:
    """A domain of this process on this machine alone: no robot's topics and no other tests come in between.

    Args:
        unless_chosen: whether ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE stay as the user has set them.
    """
    own = {"ROS_DOMAIN_ID": str(os.getpid() % 100 + 1), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    for name, value in own.items():
        if not unless_chosen or name not in os.environ:
            os.environ[name] = value

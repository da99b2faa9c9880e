"""The depth space of the eight stages that both families have had so far; new code uses `depth.space`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from anydepth_perception.depth.space import ESSENTIAL, EXITS, FULL, DepthConfig, DepthConfigError, DepthSpace

__all__ = [
    "ESSENTIAL", "FULL", "NUM_BACKBONE_STAGES", "STAGES", "DepthConfig", "DepthConfigError", "all_configs", "base_exit"
]

STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")
NUM_BACKBONE_STAGES = 4


def space_of_eight(num_exits: int) -> DepthSpace:
    """Eight stages that can all skip, and `num_exits` decoder exits."""
    return DepthSpace.of((*STAGES, EXITS) if num_exits else STAGES, STAGES, STAGES, num_exits)


def base_exit(num_exits: int) -> int | None:
    """Decoder exit of the base-net, ceil(2L/3) of L layers; None for a detector without a decoder."""
    return math.ceil(2 * num_exits / 3) if num_exits else None


def all_configs(num_exits: int = 0) -> Iterator[DepthConfig]:
    """Every configuration."""
    return space_of_eight(num_exits).all()

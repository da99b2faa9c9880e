"""Depth spaces for tests: eight stages as both families have them, and others."""

from __future__ import annotations

from anydepth_perception.depth.space import DepthSpace

STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")

EIGHT = DepthSpace.of(("stem", *STAGES, "head"), STAGES, STAGES)
"""YOLO's: all stages can skip, no decoder."""


def with_exits(num_exits: int) -> DepthSpace:
    """DETR's."""
    return DepthSpace.of(("stem", *STAGES, "selection", "exits"), STAGES, STAGES, num_exits)


FOUR = DepthSpace.of(("stem", "p2", "p3", "p4", "p5", "exits"), STAGES[:4], ("p3", "p4", "p5"), 6)
"""Four stages, of which p2 has nothing to skip, no neck, and a decoder."""

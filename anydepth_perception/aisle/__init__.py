"""Synthetic warehouse aisles: a deterministic world, a moving camera, images with exact boxes."""

from anydepth_perception.aisle.scene import AisleFrame, AisleScene
from anydepth_perception.aisle.solids import CLASS_NAMES

__all__ = ["CLASS_NAMES", "AisleFrame", "AisleScene"]

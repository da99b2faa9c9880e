"""Times of single steps where none was measured: shares of whole configurations by GFLOPs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig, Step


def estimate_steps(bundle: Bundle, rungs: Iterable[tuple[DepthConfig, float]]) -> Mapping[Step, float]:
    """Milliseconds of each step by its share of the GFLOPs of whole configurations, where none was measured.

    Args:
        bundle: what was measured.
        rungs: configurations and their milliseconds, at least one.
    """
    space, gflops = bundle.space, bundle.manifest.gflops
    # A step that costs no GFLOPs (it only selects or moves) takes time all the same: as much as the smallest.
    least = min((cost for cost in gflops.values() if cost), default=1.0)
    costs = {step: gflops[step] or least for step in space.steps}
    per_gflop = statistics.median(milliseconds / space.total(costs, config) for config, milliseconds in rungs)
    return {step: cost * per_gflop for step, cost in costs.items()}

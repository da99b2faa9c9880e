"""AP of every configuration, of which some were measured: what stages and exits add, alone and in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from anydepth_perception.depth.space import EXITS, FULL, DepthConfig, DepthSpace, Step


@dataclass(frozen=True)
class AccuracyEstimate:
    """AP as a sum: `intercept`, and the coefficient of each term that holds for a configuration.

    Attributes:
        space: what there is to choose from.
        intercept: AP of nothing at all, in [0, 1].
        terms: coefficient by what has to hold, all of it: a stage's name if it runs its full path, `d3` if exit 3 is
            read.
        num_held_out: measured configurations that the fit never saw.
        mean_absolute_error: over those, in AP; 0.005 is half a point.
    """

    space: DepthSpace
    intercept: float
    terms: Mapping[frozenset[str], float]
    num_held_out: int
    mean_absolute_error: float

    def __call__(self, config: DepthConfig) -> float:
        """The estimate for a configuration, in [0, 1]."""
        route = self.space.route(config)
        holds = {step.entry for step in route if step.way == FULL}
        holds |= {step.way for step in route if step.entry == EXITS}
        total = self.intercept + sum(value for needed, value in self.terms.items() if needed <= holds)
        return min(1.0, max(0.0, total))


class AccuracyModel:
    """AP of any configuration in [0, 1]: measured where it is known, else estimated.

    The estimate is the one that was fitted to the measured configurations, where there is one. Otherwise it adds the
    gains of single stages to base, scaled so that full is met, where each stage has one; and without those it goes
    linearly with GFLOPs from base to full. Without anything measured it ranks by GFLOPs alone: 0 at no cost, 1 at full.
    """

    def __init__(
        self,
        space: DepthSpace,
        gflops: Mapping[Step, float],
        known: Mapping[DepthConfig, float],
        estimate: AccuracyEstimate | None = None,
    ) -> None:
        """`known` is AP by configuration, base and full among them, or empty; `gflops` the cost of every step."""
        self._space = space
        self._gflops = gflops
        self._known = known
        self._estimate = estimate
        self._gflops_base, self._gflops_full = space.total(gflops, space.base), space.total(gflops, space.full)
        self._stage_gains = self._measured_stage_gains()

    def __call__(self, config: DepthConfig) -> float:
        """AP of `config`."""
        if config in self._known:
            return self._known[config]
        if self._estimate is not None:
            return self._estimate(config)
        gflops = self._space.total(self._gflops, config)
        if not self._known:
            return gflops / self._gflops_full if self._gflops_full else 0.0
        base, full = self._known[self._space.base], self._known[self._space.full]
        if self._stage_gains is not None and config.exit == self._space.base.exit:
            route = self._space.route(config)
            return base + math.fsum(self._stage_gains[step.entry] for step in route if self._is_refined(step))
        span = self._gflops_full - self._gflops_base
        share = (gflops - self._gflops_base) / span if span else 0.0
        return min(1.0, max(0.0, base + share * (full - base)))

    def _is_refined(self, step: Step) -> bool:
        return step.way == FULL and step.entry in self._space.skippable

    def _measured_stage_gains(self) -> dict[str, float] | None:
        """Gain in AP of each stage's full path, scaled to add up from base to full; None if a stage has none.

        A stage's gain is what its full path adds to the base-net, or what its essential path takes from the
        super-net, or the mean of both: whichever is known.
        """
        space, known = self._space, self._known
        full_at_base_exit = DepthConfig(space.full.full_paths, space.base.exit)
        base, full = known.get(space.base), known.get(full_at_base_exit)
        if base is None or full is None:
            return None
        unskippable = set(space.stages) - set(space.skippable)
        gains: dict[str, float] = {}
        for stage in space.skippable:
            added = known.get(space.with_full({stage} | unskippable, space.base.exit))
            taken = known.get(space.with_full(set(space.stages) - {stage}, space.base.exit))
            found = ([added - base] if added is not None else []) + ([full - taken] if taken is not None else [])
            if not found:
                return None
            # A negative gain is noise of the measurement: a refinement that looks harmful is worth nothing here.
            gains[stage] = max(0.0, sum(found) / len(found))
        total = sum(gains.values())
        if total <= 0.0:
            return None
        scale = max(0.0, full - base) / total
        return {stage: gain * scale for stage, gain in gains.items()}

"""AP of configurations that nobody measured: what stages and exits add, alone and in pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from anydepth_perception.bundle.fields import Fields
from anydepth_perception.depth.config import STAGES, DepthConfig

_EXIT = re.compile(r"d([1-9][0-9]*)")


@dataclass(frozen=True)
class AccuracyEstimate:
    """AP as a sum: `intercept`, and the coefficient of each term that holds for a configuration.

    Attributes:
        intercept: AP of nothing at all, in [0, 1].
        terms: coefficient by what has to hold, all of it: a stage's name if it runs its full path, `d3` if exit 3 is
            read.
        num_held_out: measured configurations that the fit never saw.
        mean_absolute_error: over those, in AP; 0.005 is half a point.
    """

    intercept: float
    terms: Mapping[frozenset[str], float]
    num_held_out: int
    mean_absolute_error: float

    def __call__(self, config: DepthConfig) -> float:
        """The estimate for a configuration, in [0, 1]."""
        holds = {stage for stage, full in zip(STAGES, config.full_paths, strict=True) if full}
        if config.exit is not None:
            holds.add(f"d{config.exit}")
        total = self.intercept + sum(value for needed, value in self.terms.items() if needed <= holds)
        return min(1.0, max(0.0, total))


def parse_estimate(fields: Fields, num_exits: int) -> AccuracyEstimate:
    """Reads `accuracy.estimate` of a manifest, whose `terms` are texts like `p2`, `p2 fpn_p4` or `d3 p2`.

    Raises:
        BundleError: a key is missing or of the wrong type, or a term names neither a stage nor an exit.
    """
    terms = fields.fields("terms")
    coefficients: dict[frozenset[str], float] = {}
    for text in terms.names():
        for name in text.split():
            match = _EXIT.fullmatch(name)
            if name not in STAGES and (match is None or int(match[1]) > num_exits):
                raise terms.error(f"has the term {text!r}; {name!r} is neither a stage nor one of {num_exits} exits")
        coefficients[frozenset(text.split())] = terms.number(text, -10.0, 10.0)
    return AccuracyEstimate(
        intercept=fields.number("intercept", -10.0, 10.0),
        terms=coefficients,
        num_held_out=fields.integer("num_held_out", minimum=0),
        mean_absolute_error=fields.number("mean_absolute_error", 0.0, 1.0),
    )

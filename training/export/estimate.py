"""Fits AP of any configuration to measured ones: what each stage, exit and pair of them adds."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from anydepth_perception.depth.accuracy import AccuracyEstimate
from anydepth_perception.depth.space import FULL, DepthConfig, DepthSpace

PENALTIES = tuple(10.0**exponent for exponent in np.arange(-4, 3.01, 0.25))
"""Ridge penalties on pairs that are tried."""

Terms = dict[frozenset[str], float]


def fit_estimate(measured: Mapping[DepthConfig, float], space: DepthSpace) -> AccuracyEstimate:
    """Fits AP to stages, exits and pairs of them, by ridge regression.

    Stages and exits by themselves are fitted freely; pairs (two stages, or a stage and an exit) are drawn towards
    zero by the penalty of `PENALTIES` that predicts best when each configuration is left out in turn.

    Args:
        measured: AP in [0, 1].
        space: of the detector; the stages that can skip, and the exits, are what is fitted.

    Raises:
        ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError("an estimate needs measured configurations; there are none")
    stages, num_exits = space.skippable, space.num_exits
    # Centred, so that a pair says what the two add beyond what each does on average.
    centres = dict.fromkeys(stages, 0.5) | {f"d{index}": 1 / num_exits for index in range(1, num_exits)}
    exits = [name for name in centres if name not in stages]
    mains = [(name,) for name in centres]
    pairs = [*itertools.combinations(stages, 2), *itertools.product(stages, exits)]
    columns = [(), *mains, *pairs]
    held = [_held(space, config) for config in measured]
    design = np.array([[_value(column, names, centres) for column in columns] for names in held])
    target = np.array(list(measured.values()))
    # A stage that was never varied gets no effect, instead of any.
    slight = np.array([0.0] + [1e-9] * len(mains) + [0.0] * len(pairs))
    paired = np.array([0.0] * (1 + len(mains)) + [1.0] * len(pairs))

    def solve(penalty: float) -> tuple[float, np.ndarray]:
        weights = slight + penalty * paired
        inverse = np.linalg.pinv(design.T @ design + np.diag(weights)) @ design.T
        hat = np.einsum("ij,ji->i", design, inverse)
        coefficients = inverse @ target
        left_out = (target - design @ coefficients) / np.maximum(1 - hat, 1e-6)
        return float(np.square(left_out).sum()), coefficients

    _, best = min((solve(penalty) for penalty in PENALTIES), key=lambda solution: solution[0])
    terms: Terms = {}
    for column, coefficient in zip(columns, best.tolist(), strict=True):
        for subset, factor in _expand(column, centres).items():
            terms[subset] = terms.get(subset, 0.0) + coefficient * factor
    intercept = terms.pop(frozenset())
    return AccuracyEstimate(space, intercept, terms, 0, 0.0)


def _held(space: DepthSpace, config: DepthConfig) -> set[str]:
    """The names that hold for a configuration: stages that run their full path, and the exit."""
    return {step.entry if step.way == FULL else step.way for step in space.route(config)}


def _value(column: Sequence[str], held: Collection[str], centres: Mapping[str, float]) -> float:
    return float(np.prod([(name in held) - centres[name] for name in column]))


def _expand(column: Sequence[str], centres: Mapping[str, float]) -> Terms:
    """A product of centred indicators as a sum of products of plain ones."""
    expanded: Terms = {frozenset(): 1.0}
    for name in column:
        expanded = {
            **{subset | {name}: factor for subset, factor in expanded.items()},
            **{subset: -centres[name] * factor for subset, factor in expanded.items()},
        }
    return expanded


def with_error(estimate: AccuracyEstimate, held_out: Mapping[DepthConfig, float]) -> AccuracyEstimate:
    """The estimate with its mean absolute error over configurations that it was not fitted to."""
    errors = [abs(estimate(config) - measured) for config, measured in held_out.items()]
    return dataclasses.replace(
        estimate, num_held_out=len(errors), mean_absolute_error=sum(errors) / len(errors) if errors else 0.0
    )

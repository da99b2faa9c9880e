"""Fitting steps to measured configurations: additive, monotone, and not led astray by a disturbed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.depth.space import DepthConfig, Step
from anydepth_perception.profile.fit import MOST_RESIDUAL, StepFit, fit_steps
from anydepth_perception.profile.step_estimates import estimate_steps

BUNDLE = Bundle.load(Path(__file__).parents[3] / "models" / "aisle-yolo-t.anydepth")
CONFIGS = BUNDLE.default_configs()

Times = Mapping[DepthConfig, float]


def machine(seed: int) -> dict[Step, float]:
    """Times of the steps on some machine, milliseconds: not quite what the GFLOPs say."""
    rng = np.random.default_rng(seed)
    costs = {step: 20.0 * BUNDLE.manifest.gflops[step] * rng.uniform(0.7, 1.4) + 0.2 for step in BUNDLE.space.steps}
    for entry in BUNDLE.space.entries:
        for less, more in zip(entry.ways, entry.ways[1:], strict=False):
            costs[Step(entry.name, more)] = max(costs[Step(entry.name, more)], 1.05 * costs[Step(entry.name, less)])
    return costs


def totals(step_ms: Mapping[Step, float], configs=CONFIGS) -> dict[DepthConfig, float]:
    return {config: BUNDLE.space.total(step_ms, config) for config in configs}


def fitted(measured: Times) -> StepFit:
    return fit_steps(BUNDLE.space, estimate_steps(BUNDLE, measured.items()), measured)


def rungs_on_ladder(times: Times) -> int:
    rungs = [Rung(config, ms, BUNDLE.average_precision(config)) for config, ms in times.items()]
    return len(Ladder.pareto(rungs, base=BUNDLE.base, full=BUNDLE.full))


@pytest.mark.parametrize("seed", range(5))
def test_times_of_a_quiet_machine_are_kept_as_they_are(seed: int) -> None:
    truth = totals(machine(seed))
    fit = fitted(truth)
    assert fit.residual < 0.01
    assert totals(fit.step_ms) == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_disturbed_rungs_stay_on_the_ladder(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    truth = totals(machine(seed))
    measured = {config: ms * (1.0 + abs(rng.normal(0.0, 0.1))) for config, ms in truth.items()}
    assert rungs_on_ladder(totals(fitted(measured).step_ms)) >= rungs_on_ladder(truth) - 1


def test_ladder_of_two_out_of_eight_does_not_come_back() -> None:
    truth = totals(machine(0))
    disturbed = [1.0, 1.5, 1.45, 1.4, 1.35, 1.3, 1.25, 1.0]
    measured = {config: ms * factor for (config, ms), factor in zip(truth.items(), disturbed, strict=True)}
    assert rungs_on_ladder(measured) == 2
    fit = fitted(measured)
    assert rungs_on_ladder(totals(fit.step_ms)) >= 7
    assert fit.residual > MOST_RESIDUAL


@pytest.mark.parametrize("seed", range(5))
def test_no_step_takes_less_time_than_one_that_does_less_whatever_was_measured(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fit = fitted({config: float(rng.uniform(5.0, 50.0)) for config in CONFIGS})
    assert all(ms > 0.0 for ms in fit.step_ms.values())
    for entry in BUNDLE.space.entries:
        for less, more in zip(entry.ways, entry.ways[1:], strict=False):
            assert fit.step_ms[Step(entry.name, more)] > fit.step_ms[Step(entry.name, less)]


def test_one_disturbed_configuration_hardly_moves_the_others() -> None:
    truth = totals(machine(3))
    outlier = CONFIGS[4]
    fit = fitted({**truth, outlier: 1.5 * truth[outlier]})
    others = [config for config in CONFIGS if config != outlier]
    assert totals(fit.step_ms, others) == pytest.approx({config: truth[config] for config in others}, rel=0.05)
    assert totals(fit.step_ms)[outlier] < 1.15 * truth[outlier]


def test_configuration_that_scatters_counts_less() -> None:
    truth = totals(machine(1))
    outlier = CONFIGS[3]
    measured = {**truth, outlier: 1.05 * truth[outlier]}
    expected = estimate_steps(BUNDLE, measured.items())
    trusted, doubted = (
        totals(fit_steps(BUNDLE.space, expected, measured, {outlier: scatter}).step_ms)[outlier]
        for scatter in (0.0, 0.5)
    )
    assert abs(doubted / truth[outlier] - 1.0) < abs(trusted / truth[outlier] - 1.0)


def test_steps_that_nothing_measured_tells_apart_keep_their_proportions() -> None:
    expected = machine(2)
    full = BUNDLE.full
    fit = fit_steps(BUNDLE.space, expected, {full: 2.0 * BUNDLE.space.total(expected, full)})
    for step in BUNDLE.space.route(full):
        assert fit.step_ms[step] == pytest.approx(2.0 * expected[step], rel=1e-2)

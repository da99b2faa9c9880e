"""The slowdown filter and the conformal margin on synthetic times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydepth_perception.depth.simulation.plan_once import (
    ConformalMargin,
    EstimatorParameters,
    SlowdownFilter,
    usable_time,
)

BAD_TIMES = [0.0, -1.0, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("slowdown", [0.5, 1.0, 1.6, 3.0])
def test_filter_settles_on_a_steady_slowdown(slowdown: float) -> None:
    estimate = SlowdownFilter()
    for _ in range(60):
        estimate.update(20.0 * slowdown, 20.0)
    assert estimate.slowdown == pytest.approx(slowdown, rel=0.01)


def test_filter_follows_a_step_within_five_frames() -> None:
    estimate = SlowdownFilter()
    for _ in range(200):
        estimate.update(20.0, 20.0)
    for _ in range(5):
        estimate.update(30.0, 20.0)
    assert estimate.slowdown == pytest.approx(1.5, rel=0.05)


def test_filter_smooths_the_scatter_of_single_frames() -> None:
    rng = np.random.default_rng(0)
    estimate = SlowdownFilter()
    estimates = []
    for residual in rng.normal(0, 0.05, 500):
        estimate.update(math.exp(residual), 1.0)
        estimates.append(estimate.log_slowdown)
    assert np.std(estimates[50:]) < 0.6 * 0.05


@pytest.mark.parametrize("bad", BAD_TIMES)
def test_filter_skips_times_that_teach_nothing(bad: float) -> None:
    estimate = SlowdownFilter()
    before = estimate.log_slowdown
    estimate.update(bad, 20.0)
    estimate.update(20.0, bad)
    assert estimate.log_slowdown == before


@pytest.mark.parametrize("bad", BAD_TIMES)
def test_margin_skips_times_that_teach_nothing(bad: float) -> None:
    margin = ConformalMargin()
    margin.update(bad, 20.0)
    margin.update(20.0, bad)
    assert margin.margin == EstimatorParameters().initial_margin


@pytest.mark.parametrize("scatter", [0.05, 0.15])
@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_margin_covers_all_but_epsilon_in_the_long_run(scatter: float, epsilon: float) -> None:
    rng = np.random.default_rng(0)
    margin = ConformalMargin(EstimatorParameters(epsilon=epsilon))
    above = []
    for residual in rng.normal(0, scatter, 60_000):
        above.append(residual > margin.margin)
        margin.update(math.exp(residual), 1.0)
    assert np.mean(above[20_000:]) == pytest.approx(epsilon, rel=0.35)


@given(times=st.lists(st.tuples(st.floats(), st.floats()), max_size=50))
def test_state_stays_finite_whatever_it_is_told(times: list[tuple[float, float]]) -> None:
    parameters = EstimatorParameters()
    estimate, margin = SlowdownFilter(parameters), ConformalMargin(parameters)
    for actual_ms, expected_ms in times:
        estimate.update(actual_ms, expected_ms)
        margin.update(actual_ms, expected_ms)
        assert math.isfinite(estimate.log_slowdown)
        assert parameters.minimum_margin <= margin.margin <= parameters.maximum_margin


def test_usable_times_are_finite_and_above_zero() -> None:
    assert usable_time(1e-9)
    assert not any(usable_time(bad) for bad in [*BAD_TIMES, None])

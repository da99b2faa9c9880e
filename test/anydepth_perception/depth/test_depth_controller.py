"""The depth controller on synthetic times: what it chooses when idle, under load, and when nothing can fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.depth.controller import DepthController
from anydepth_perception.depth.ladder import Ladder, Rung

TEXTS = ("EEEE.EEEE", "EEEF.EEEE", "EEFF.EEEE", "EFFF.EEFE", "EFFF.FEFF", "FFFF.FFFF")
LADDER = Ladder([Rung(DepthConfig.parse(text), 14.0 + 1.2 * i, 0.4 + 0.02 * i) for i, text in enumerate(TEXTS)])
HOST_MS = 2.0
FULL_MS = HOST_MS + LADDER.full.latency_ms


def controller() -> DepthController:
    return DepthController(LADDER, HOST_MS)


@dataclass
class Simulation:
    """Frames with synthetic times: profile times slowdown times a few percent of log-normal scatter."""

    controller: DepthController
    deadline_ms: float
    scatter: float = 0.02
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def run(self, frames: int, slowdown: float, host_slowdown: float | None = None) -> tuple[list[int], list[bool]]:
        """Index of the rung and whether the deadline was missed, per frame."""
        rungs, missed = [], []
        for _ in range(frames):
            rung = self.controller.choose(self.deadline_ms)
            inference_ms = rung.latency_ms * slowdown * math.exp(self.rng.normal(0, self.scatter))
            host_ms = HOST_MS * (host_slowdown or slowdown) * math.exp(self.rng.normal(0, self.scatter))
            self.controller.observe(rung, inference_ms, host_ms)
            rungs.append(LADDER.rungs.index(rung))
            missed.append(inference_ms + host_ms > self.deadline_ms)
        return rungs, missed


def test_load_step_makes_it_shallower_within_three_frames_and_back() -> None:
    simulation = Simulation(controller(), deadline_ms=1.5 * FULL_MS)
    idle, idle_missed = simulation.run(150, 1.0)
    loaded, loaded_missed = simulation.run(150, 1.6)
    after, after_missed = simulation.run(150, 1.0)
    assert set(idle[10:]) == {5}
    assert min(loaded[:4]) < 5
    assert max(loaded[5:]) < 5
    assert set(after[10:]) == {5}
    assert sum(loaded_missed) <= 2
    assert sum(idle_missed + after_missed) == 0


def test_load_that_leaves_room_for_little_more_than_base_is_met() -> None:
    simulation = Simulation(controller(), deadline_ms=1.35 * FULL_MS)
    assert set(simulation.run(100, 1.0)[0][10:]) == {5}
    loaded, missed = simulation.run(200, 1.45)
    assert set(loaded[20:]) <= {0, 1, 2}
    assert sum(missed) <= 2


def test_repeated_load_steps_miss_few_frames() -> None:
    simulation = Simulation(controller(), deadline_ms=1.5 * FULL_MS, scatter=0.04)
    missed = [simulation.run(60, slowdown)[1] for slowdown in (1.0, 1.5) * 10]
    assert sum(map(sum, missed)) <= 0.02 * 60 * 20
    assert all(sum(frames) <= 2 for frames in missed)


def test_deadline_that_nothing_meets_gets_base_and_is_said_to_be_infeasible() -> None:
    simulation = Simulation(controller(), deadline_ms=10.0)
    assert set(simulation.run(50, 1.0)[0]) == {0}
    assert not simulation.controller.state.feasible


def test_recovers_from_an_infeasible_load() -> None:
    simulation = Simulation(controller(), deadline_ms=1.6 * FULL_MS)
    assert simulation.run(100, 4.0)[0][-1] == 0
    assert set(simulation.run(60, 1.0)[0][15:]) == {5}


def test_load_on_the_host_alone_takes_depth_too() -> None:
    simulation = Simulation(controller(), deadline_ms=1.4 * FULL_MS)
    assert simulation.run(60, 1.0)[0][-1] == 5
    rungs, _ = simulation.run(60, 1.0, host_slowdown=5.0)
    state = simulation.controller.state
    assert rungs[-1] < 5
    assert state.host_slowdown == pytest.approx(5.0, rel=0.1)
    assert state.inference_slowdown == pytest.approx(1.0, rel=0.1)


def test_one_stalled_frame_is_forgotten_within_ten() -> None:
    simulation = Simulation(controller(), deadline_ms=1.5 * FULL_MS)
    simulation.run(60, 1.0)
    simulation.run(1, 6.0)
    assert set(simulation.run(40, 1.0)[0][10:]) == {5}


def test_without_deadline_the_deepest_rung_runs() -> None:
    slow = controller()
    slow.observe(LADDER.full, 500.0, 50.0)
    assert slow.choose(None) == LADDER.full
    assert slow.state.feasible


@pytest.mark.parametrize("budget_ms", [0.0, -5.0, -math.inf, math.nan])
def test_no_time_left_gets_base(budget_ms: float) -> None:
    assert controller().choose(budget_ms) == LADDER.base
    assert controller().choose(math.inf) == LADDER.full


@pytest.mark.parametrize(("depth", "config"), [("base", TEXTS[0]), ("full", TEXTS[-1]), (TEXTS[2], TEXTS[2])])
def test_fixed_depth_runs_whatever_the_budget(depth: str, config: str) -> None:
    fixed = controller()
    fixed.set_depth(depth)
    assert [str(fixed.choose(budget).config) for budget in (None, 1.0, 1000.0)] == [config] * 3
    assert fixed.depth == config
    fixed.choose(1.0)
    assert not fixed.state.feasible


def test_auto_takes_over_again() -> None:
    changing = controller()
    changing.set_depth("base")
    changing.set_depth("auto")
    assert changing.depth == "auto"
    assert changing.choose(1000.0) == LADDER.full


def test_slowdown_is_learnt_at_a_fixed_depth_too() -> None:
    fixed = controller()
    fixed.set_depth("base")
    for _ in range(40):
        fixed.observe(fixed.choose(None), LADDER.base.latency_ms * 2, HOST_MS * 2)
    assert fixed.state.inference_slowdown == pytest.approx(2.0, rel=0.02)


def test_fixed_depth_that_was_not_profiled_teaches_nothing() -> None:
    fixed = controller()
    config = DepthConfig.parse("FEFE.FEFE")
    fixed.set_depth(config)
    rung = fixed.choose(30.0)
    assert rung.config == config
    before = fixed.state.inference_slowdown
    fixed.observe(rung, 99.0)
    assert fixed.state.inference_slowdown == before


def test_profiled_rung_beside_the_ladder_is_known() -> None:
    beside = Rung(DepthConfig.parse("FEFE.FEFE"), 17.0, 0.41)
    fixed = DepthController(LADDER, HOST_MS, profiled=[beside])
    fixed.set_depth("FEFE.FEFE")
    assert fixed.choose(None) is beside


@pytest.mark.parametrize("depth", ["deep", "", "FFFF", "FFFF.FFFF.d1", "AUTO"])
def test_unknown_depth_is_refused_and_changes_nothing(depth: str) -> None:
    unchanged = controller()
    with pytest.raises(DepthConfigError):
        unchanged.set_depth(depth)
    assert unchanged.depth == "auto"


@pytest.mark.parametrize("host_ms", [-1.0, math.nan, math.inf])
def test_bad_host_time_is_refused(host_ms: float) -> None:
    with pytest.raises(ValueError, match="host_ms is"):
        DepthController(LADDER, host_ms)


@given(
    frames=st.lists(st.tuples(st.floats(), st.floats(), st.one_of(st.none(), st.floats())), max_size=40),
    depth=st.sampled_from(["auto", "base", "FEFE.FEFE"]),
)
def test_never_fails_whatever_it_is_told(frames: list[tuple[float, float, float | None]], depth: str) -> None:
    robust = controller()
    robust.set_depth(depth)
    for budget_ms, inference_ms, host_ms in frames:
        rung = robust.choose(budget_ms)
        assert isinstance(rung, Rung)
        robust.observe(rung, inference_ms, host_ms)
    state = robust.state
    assert all(map(math.isfinite, (state.inference_slowdown, state.host_slowdown, state.margin)))


@given(budgets=st.lists(st.floats(1, 100), min_size=2, max_size=2), slowdown=st.floats(0.5, 4))
def test_more_time_never_buys_less_depth(budgets: list[float], slowdown: float) -> None:
    settled = controller()
    for _ in range(20):
        settled.observe(LADDER.base, LADDER.base.latency_ms * slowdown, HOST_MS * slowdown)
    less, more = (settled.choose(budget) for budget in sorted(budgets))
    assert less.latency_ms <= more.latency_ms


@given(budget_ms=st.floats(1, 200), slowdown=st.floats(0.5, 4))
def test_chosen_rung_is_bounded_by_the_budget_and_the_next_is_not(budget_ms: float, slowdown: float) -> None:
    settled = controller()
    for _ in range(20):
        settled.observe(LADDER.base, LADDER.base.latency_ms * slowdown, HOST_MS * slowdown)
    chosen = LADDER.rungs.index(settled.choose(budget_ms))
    if settled.state.feasible:
        assert settled.bound_ms(LADDER.rungs[chosen]) <= budget_ms * (1 + 1e-9)
    if chosen + 1 < len(LADDER):
        assert settled.bound_ms(LADDER.rungs[chosen + 1]) > budget_ms * (1 - 1e-9)

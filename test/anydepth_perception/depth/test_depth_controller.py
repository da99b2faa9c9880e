"""The depth controller on synthetic times: what it chooses when idle, under load, and when nothing can fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import EIGHT, with_exits

from anydepth_perception.depth.controller import DepthController
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace, Step

TEXTS = ("EEEE.EEEE", "EEEF.EEEE", "EEFF.EEEE", "EFFF.EEFE", "EFFF.FEFF", "FFFF.FFFF")
LADDER = Ladder([Rung(DepthConfig.parse(text), 14.0 + 1.2 * i, 0.4 + 0.02 * i) for i, text in enumerate(TEXTS)])
HOST_MS = 2.0
FULL_MS = HOST_MS + LADDER.full.latency_ms
CONFIGS = [rung.config for rung in LADDER.rungs]
STEP_MS = {step: 1.0 + 2.0 * (step.way == "full") for step in EIGHT.steps}


def controller() -> DepthController:
    return DepthController(EIGHT, LADDER.rungs, STEP_MS, HOST_MS)


def frame(controller: DepthController, inference_ms: float, host_ms: float | None = None) -> None:
    """A frame without a deadline, at base where nothing else is fixed, that took this long."""
    controller.begin(0.0)
    controller.end(inference_ms, host_ms)


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
            config = self.controller.begin(self.deadline_ms)
            latency_ms = self.controller.latency_ms(config)
            inference_ms = latency_ms * slowdown * math.exp(self.rng.normal(0, self.scatter))
            host_ms = HOST_MS * (host_slowdown or slowdown) * math.exp(self.rng.normal(0, self.scatter))
            self.controller.end(inference_ms, host_ms)
            rungs.append(CONFIGS.index(config))
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
    frame(slow, 500.0, 50.0)
    assert slow.begin(None) == EIGHT.full
    assert slow.state.feasible


@pytest.mark.parametrize("budget_ms", [0.0, -5.0, -math.inf, math.nan])
def test_no_time_left_gets_base(budget_ms: float) -> None:
    assert controller().begin(budget_ms) == EIGHT.base
    assert controller().begin(math.inf) == EIGHT.full


@pytest.mark.parametrize(("depth", "config"), [("base", TEXTS[0]), ("full", TEXTS[-1]), (TEXTS[2], TEXTS[2])])
def test_fixed_depth_runs_whatever_the_budget(depth: str, config: str) -> None:
    fixed = controller()
    fixed.set_depth(depth)
    assert [str(fixed.begin(budget)) for budget in (None, 1.0, 1000.0)] == [config] * 3
    assert fixed.depth == config
    fixed.begin(1.0)
    assert not fixed.state.feasible


def test_auto_takes_over_again() -> None:
    changing = controller()
    changing.set_depth("base")
    changing.set_depth("auto")
    assert changing.depth == "auto"
    assert changing.begin(1000.0) == EIGHT.full


def test_slowdown_is_learnt_at_a_fixed_depth_too() -> None:
    fixed = controller()
    fixed.set_depth("base")
    for _ in range(40):
        fixed.begin(None)
        fixed.end(LADDER.base.latency_ms * 2, HOST_MS * 2)
    assert fixed.state.inference_slowdown == pytest.approx(2.0, rel=0.02)


def test_fixed_depth_that_was_not_profiled_is_known_by_the_sum_of_its_steps() -> None:
    fixed = controller()
    fixed.set_depth("FEFE.FEFE")
    assert fixed.begin(None) == DepthConfig.parse("FEFE.FEFE")
    assert fixed.latency_ms(DepthConfig.parse("FEFE.FEFE")) == 10 * 1.0 + 4 * 2.0
    for _ in range(40):
        fixed.begin(None)
        fixed.end(2 * 18.0)
    assert fixed.state.inference_slowdown == pytest.approx(2.0, rel=0.02)


def test_profiled_configuration_beside_the_ladder_is_known() -> None:
    beside = Rung(DepthConfig.parse("FEFE.FEFE"), 17.0, 0.41)
    fixed = DepthController(EIGHT, [*LADDER.rungs, beside], STEP_MS, HOST_MS)
    assert beside not in fixed.ladder.rungs
    assert fixed.latency_ms(beside.config) == 17.0


def test_a_frame_is_hopeless_below_four_fifths_of_base_on_an_idle_machine() -> None:
    assert controller().is_hopeless(0.79 * LADDER.base.latency_ms)
    assert not controller().is_hopeless(0.81 * LADDER.base.latency_ms)


@pytest.mark.parametrize("depth", ["deep", "", "FFFF", "FFFF.FFFF.d1", "AUTO", DepthConfig((True,) * 4)])
def test_unknown_depth_is_refused_and_changes_nothing(depth: str | DepthConfig) -> None:
    unchanged = controller()
    with pytest.raises(DepthConfigError):
        unchanged.set_depth(depth)
    assert unchanged.depth == "auto"


@pytest.mark.parametrize("host_ms", [-1.0, math.nan, math.inf])
def test_bad_host_time_is_refused(host_ms: float) -> None:
    with pytest.raises(ValueError, match="host_ms is"):
        DepthController(EIGHT, LADDER.rungs, STEP_MS, host_ms)


@given(
    frames=st.lists(st.tuples(st.floats(), st.floats(), st.one_of(st.none(), st.floats())), max_size=40),
    depth=st.sampled_from(["auto", "base", "FEFE.FEFE"]),
)
def test_never_fails_whatever_it_is_told(frames: list[tuple[float, float, float | None]], depth: str) -> None:
    robust = DepthController(EIGHT, LADDER.rungs, STEP_MS, HOST_MS, points=EIGHT.default_points)
    robust.set_depth(depth)
    for budget_ms, inference_ms, host_ms in frames:
        assert robust.begin(budget_ms) in EIGHT.all()
        assert robust.decide("pan_p4", inference_ms) in EIGHT.all()
        robust.end(inference_ms, host_ms)
    state = robust.state
    assert all(map(math.isfinite, (state.inference_slowdown, state.host_slowdown, state.margin)))


@given(budgets=st.lists(st.floats(1, 100), min_size=2, max_size=2), slowdown=st.floats(0.5, 4))
def test_more_time_never_buys_less_depth(budgets: list[float], slowdown: float) -> None:
    settled = controller()
    for _ in range(20):
        frame(settled, LADDER.base.latency_ms * slowdown, HOST_MS * slowdown)
    less, more = (settled.latency_ms(settled.begin(budget)) for budget in sorted(budgets))
    assert less <= more


@given(budget_ms=st.floats(1, 200), slowdown=st.floats(0.5, 4))
def test_chosen_rung_is_bounded_by_the_budget_and_the_next_is_not(budget_ms: float, slowdown: float) -> None:
    settled = controller()
    for _ in range(20):
        frame(settled, LADDER.base.latency_ms * slowdown, HOST_MS * slowdown)
    chosen = CONFIGS.index(settled.begin(budget_ms))
    if settled.state.feasible:
        assert settled.bound_ms(CONFIGS[chosen]) <= budget_ms * (1 + 1e-9)
    if chosen + 1 < len(LADDER):
        assert settled.bound_ms(CONFIGS[chosen + 1]) > budget_ms * (1 - 1e-9)


ALL_MS = sum(STEP_MS[step] for step in EIGHT.route(EIGHT.full))
BASE_MS = 10.0
"""Entries take 1 ms each, and 2 ms more on the full path of a stage."""
LATE_MS = 1000.0


def staged(
    budget_ms: float | None, *, space: DepthSpace = EIGHT, postprocess_ms: float = 0.0, slowdown: float = 1.0,
    full_ms: float = ALL_MS, step_ms: dict[Step, float] = STEP_MS,
) -> DepthController:
    """A frame with a plan of full depth; the slowdown is known to be `slowdown`, `budget_ms` are left after `LATE_MS`.

    So the plan was made with time enough, and most of it is gone before the inference begins.
    """
    rungs = [Rung(space.base, full_ms / 3, 0.4), Rung(space.full, full_ms, 0.5)]
    points = space.default_points
    deciding = DepthController(space, rungs, step_ms, 0.0, postprocess_ms=postprocess_ms, points=points)
    for _ in range(200):
        deciding.begin(None)
        deciding.end(full_ms * slowdown)
    assert deciding.begin(None if budget_ms is None else LATE_MS + budget_ms) == space.full
    return deciding


def decide(deciding: DepthController, point: str, elapsed_ms: float) -> DepthConfig:
    """What is decided `elapsed_ms` after `LATE_MS`."""
    return deciding.decide(point, LATE_MS + elapsed_ms)


def test_plan_that_fits_stays() -> None:
    assert decide(staged(ALL_MS + 2.5, postprocess_ms=1.0), "stem", 1.0) == EIGHT.full


@pytest.mark.parametrize(
    ("missing_ms", "left"),
    [(0.5, "FFFF.FFFE"), (1.5, "FFFF.FFFE"), (2.5, "FFFF.FFEE"), (11.0, "FFEE.EEEE"), (99.0, "EEEE.EEEE")],
)
def test_latest_refinements_are_dropped_until_the_rest_fits(missing_ms: float, left: str) -> None:
    assert str(decide(staged(ALL_MS - missing_ms), "stem", 0.0)) == left


def test_time_after_the_inference_is_kept_free() -> None:
    deciding = staged(ALL_MS, postprocess_ms=3.0)
    reserve_ms = 3.0 * deciding.state.host_slowdown
    assert str(decide(deciding, "stem", 0.0)) == "FFFF.FFEE"
    assert 2.0 < reserve_ms < 4.0


def test_slowdown_known_before_the_frame_counts() -> None:
    assert str(decide(staged(2 * (ALL_MS - 2.0) + 0.5, slowdown=2.0), "stem", 0.0)) == "FFFF.FFFE"


def test_slowdown_within_the_frame_counts_from_the_next_point_on() -> None:
    # Twice as slow as profiled: the first group, 10 ms, took 20; what is left, 16 ms, would take 32.
    deciding = staged(20.0 + 32.0 - 4.0)
    assert decide(deciding, "stem", 0.0) == EIGHT.full
    assert str(decide(deciding, "p5", 20.0)) == "FFFF.FFFE"


def test_time_before_the_inference_is_no_slowdown() -> None:
    deciding = staged(30.5 + ALL_MS)
    assert decide(deciding, "stem", 30.0) == EIGHT.full
    assert decide(deciding, "p5", 40.0) == EIGHT.full


def test_what_has_run_is_not_touched_and_what_was_dropped_does_not_come_back() -> None:
    deciding = staged(ALL_MS + 1.0)
    assert decide(deciding, "stem", 0.0) == EIGHT.full
    assert str(decide(deciding, "pan_p4", 500.0)) == "FFFF.FFEE"
    assert str(decide(deciding, "head", 500.0)) == "FFFF.FFEE"


def test_steps_are_scaled_to_the_time_of_the_plan() -> None:
    deciding = staged(2 * ALL_MS - 1.0, full_ms=2 * ALL_MS)
    assert str(decide(deciding, "stem", 0.0)) == "FFFF.FFFE"


def test_what_ran_is_learnt_from_and_not_the_plan() -> None:
    deciding = staged(BASE_MS)
    assert decide(deciding, "stem", 0.0) == EIGHT.base
    before = deciding.state.inference_slowdown
    deciding.end(deciding.latency_ms(EIGHT.base) * before)
    assert deciding.state.inference_slowdown == pytest.approx(before)


@pytest.mark.parametrize(("budget_ms", "exit_number"), [(100.0, 4), (12.5, 3), (1.0, 3)])
def test_decoder_exit_is_dropped_first_and_not_below_that_of_base(budget_ms: float, exit_number: int) -> None:
    space = with_exits(4)
    step_ms = {step: 1.0 if step.entry != "exits" else float(step.way[1:]) for step in space.steps}
    deciding = staged(budget_ms, space=space, full_ms=14.0, step_ms=step_ms)
    assert decide(deciding, "stem", 0.0).exit == exit_number


def test_nothing_is_decided_within_a_frame_without_points_a_deadline_or_with_a_fixed_depth() -> None:
    once = controller()
    once.begin(1.0)
    assert not once.may_change
    unhurried = staged(None)
    assert not unhurried.may_change
    assert decide(unhurried, "pan_p4", 1e6) == EIGHT.full
    fixed = DepthController(EIGHT, LADDER.rungs, STEP_MS, HOST_MS, points=EIGHT.default_points)
    fixed.set_depth("full")
    fixed.begin(1.0)
    assert not fixed.may_change
    assert fixed.decide("pan_p4", 1e6) == EIGHT.full
    assert staged(1.0).may_change

"""The depth controller on made-up times: what it chooses when idle, under load, within a frame, and out of time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import EIGHT, with_exits

from anydepth_perception.depth.controller import DepthController
from anydepth_perception.depth.limits import DepthLimits
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace, Step

STEP_MS = {step: 1.0 + 2.0 * (step.way == "full") for step in EIGHT.steps}
"""Entries take 1 ms each, and 2 ms more on the full path of a stage: base 10 ms, full 26 ms."""
PRECISION = {config: 0.4 + 0.2 * config.depth_fraction for config in EIGHT.all()}
PRE_MS, POST_MS = 1.5, 0.5
FULL_MS = 26.0 + PRE_MS + POST_MS
BASE_MS = 10.0 + PRE_MS + POST_MS
POINTS = ("p4", "fpn_p3", "pan_p5")


def controller(points: tuple[str, ...] = POINTS, **changed: object) -> DepthController:
    arguments = {"preprocess_ms": PRE_MS, "postprocess_ms": POST_MS, "points": points, **changed}
    return DepthController(EIGHT, STEP_MS, PRECISION, **arguments)  # type: ignore[arg-type]


@dataclass
class Machine:
    """Runs frames with made-up times: profiled ones times a slowdown times a few percent of log-normal scatter."""

    controller: DepthController
    deadline_ms: float | None
    scatter: float = 0.02
    points: tuple[str, ...] = POINTS
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def frame(self, slowdown: float, host_slowdown: float | None = None) -> tuple[DepthConfig, bool]:
        """What ran, and whether it was late."""
        host = (host_slowdown or slowdown) * math.exp(self.rng.normal(0, self.scatter))
        space = self.controller.space
        self.controller.open(self.deadline_ms)
        elapsed_ms, config = PRE_MS * host, self.controller.decide(space.names[0], PRE_MS * host)
        for index, entry in enumerate(space.names):
            if entry in self.points and index:
                config = self.controller.decide(entry, elapsed_ms)
            step = space.route(config)[index]
            elapsed_ms += STEP_MS[step] * slowdown * math.exp(self.rng.normal(0, self.scatter))
        self.controller.end(elapsed_ms - PRE_MS * host, (PRE_MS + POST_MS) * host)
        return config, elapsed_ms + POST_MS * host > (self.deadline_ms or math.inf)

    def run(self, frames: int, slowdown: float, host_slowdown: float | None = None) -> tuple[list[float], list[bool]]:
        """Depth of each frame as a share of stages, and whether it was late."""
        found = [self.frame(slowdown, host_slowdown) for _ in range(frames)]
        return [config.depth_fraction for config, _ in found], [late for _, late in found]


@pytest.mark.parametrize("points", [(), POINTS])
def test_load_step_costs_two_frames_at_most_and_full_depth_is_back_within_five(points: tuple[str, ...]) -> None:
    machine = Machine(controller(points), 1.25 * FULL_MS, points=points)
    idle, idle_late = machine.run(150, 1.0)
    loaded, loaded_late = machine.run(150, 1.6)
    after, after_late = machine.run(150, 1.0)
    assert set(idle[50:]) == {1.0}
    assert 0.0 < np.mean(loaded[10:]) < 1.0
    assert set(after[5:]) == {1.0}
    assert sum(loaded_late) <= 2
    assert sum(idle_late + after_late) == 0


def test_room_that_the_load_leaves_is_used() -> None:
    machine = Machine(controller(), 1.3 * FULL_MS)
    machine.run(60, 1.0)
    loaded, late = machine.run(200, 1.7)
    # 36 ms at a slowdown of 1.7 are 21.4 profiled ones: base and five refinements take 21 with the host.
    assert np.mean(loaded[20:]) >= 4 / 8
    assert sum(late) <= 4


def test_a_stall_that_no_depth_would_have_survived_costs_no_depth() -> None:
    machine = Machine(controller(), 1.2 * FULL_MS)
    machine.run(100, 1.0)
    depths = []
    for _ in range(30):
        machine.run(1, 8.0, host_slowdown=1.0)  # base too is late then
        depths += machine.run(9, 1.0)[0][4:]
    assert np.mean(depths) > 0.95


def test_slow_start_of_a_frame_shortens_its_rest_and_a_fast_one_deepens_it() -> None:
    deciding = controller()
    machine = Machine(deciding, 1.15 * FULL_MS)
    for index in range(200):
        machine.frame(1.0 if index % 3 else 1.15)
    deciding.open(1.15 * FULL_MS)
    begun = deciding.decide("stem", PRE_MS)
    slow = deciding.decide("p4", PRE_MS + 2.0 * 7.0)
    assert slow.depth_fraction < begun.depth_fraction
    assert slow.full_paths[:2] == begun.full_paths[:2]
    tight = 0.8 * FULL_MS
    deciding.open(tight)
    begun = deciding.decide("stem", PRE_MS)
    fast = deciding.decide("p4", PRE_MS + 0.2 * 5.0)
    assert fast.depth_fraction >= begun.depth_fraction


def test_what_has_run_is_agreed_with_at_every_point() -> None:
    deciding = controller()
    rng = np.random.default_rng(1)
    for _ in range(300):
        deciding.open(float(rng.uniform(8, 40)))
        elapsed_ms = float(rng.uniform(0, 4))
        config = deciding.decide("stem", elapsed_ms)
        for point in POINTS:
            elapsed_ms += float(rng.uniform(0, 15))
            before, config = config, deciding.decide(point, elapsed_ms)
            done = EIGHT.names.index(point)
            assert EIGHT.route(config)[:done] == EIGHT.route(before)[:done]
        deciding.end(elapsed_ms, 2.0)


def test_deadline_that_nothing_meets_gets_base_and_is_said_to_be_infeasible() -> None:
    machine = Machine(controller(), 0.7 * BASE_MS)
    assert set(machine.run(50, 1.0)[0]) == {0.0}
    assert not machine.controller.state.feasible
    assert machine.controller.bound_ms(EIGHT.base) == pytest.approx(BASE_MS, rel=0.15), "the figure that would work"


def test_hopeless_frame_of_a_decoder_runs_the_base_net_and_not_the_first_exit() -> None:
    space = with_exits(6)
    step_ms = {step: float(step.way[1:]) if step.entry == "exits" else STEP_MS.get(step, 1.0) for step in space.steps}
    precision = {config: 0.3 + 0.02 * (config.exit or 0) + 0.1 * config.depth_fraction for config in space.all()}
    deciding = DepthController(space, step_ms, precision, points=("exits",))
    assert deciding.begin(1.0) == space.base
    assert deciding.decide("exits", 50.0) == space.base
    # A first exit that makes it is worth more than a base-net that does not.
    deciding.begin(16.0)
    assert (deciding.decide("exits", 13.4).exit or 9) < (space.base_exit or 0)


def test_recovers_from_an_infeasible_load() -> None:
    machine = Machine(controller(), 1.6 * FULL_MS)
    assert machine.run(100, 6.0)[0][-1] == 0.0
    assert set(machine.run(60, 1.0)[0][15:]) == {1.0}


def test_load_on_the_host_alone_is_told_apart() -> None:
    machine = Machine(controller(), 1.25 * FULL_MS)
    machine.run(60, 1.0)
    machine.run(60, 1.0, host_slowdown=3.0)
    state = machine.controller.state
    assert state.host_slowdown == pytest.approx(3.0, rel=0.1)
    assert state.inference_slowdown == pytest.approx(1.0, rel=0.1)


def test_one_stalled_frame_is_forgotten_within_five() -> None:
    machine = Machine(controller(), 1.5 * FULL_MS)
    machine.run(60, 1.0)
    machine.run(1, 6.0)
    assert set(machine.run(40, 1.0)[0][5:]) == {1.0}


def test_without_deadline_the_deepest_runs() -> None:
    slow = controller()
    slow.begin(1.0)
    slow.end(500.0, 50.0)
    assert slow.begin(None) == EIGHT.full
    assert slow.state.feasible and not slow.may_change


@pytest.mark.parametrize("budget_ms", [0.0, -5.0, -math.inf, math.nan, 1e-300])
def test_no_time_left_gets_base(budget_ms: float) -> None:
    assert controller().begin(budget_ms) == EIGHT.base


@pytest.mark.parametrize("budget_ms", [math.inf, 1e300, 1e4])
def test_all_the_time_gets_full(budget_ms: float) -> None:
    assert controller().begin(budget_ms) == EIGHT.full


@pytest.mark.parametrize("depth", ["base", "full", "FEFE.FEFE"])
def test_fixed_depth_runs_whatever_the_budget_and_is_learnt_from(depth: str) -> None:
    fixed = controller()
    fixed.set_depth(depth)
    config = EIGHT.parse(depth)
    assert [fixed.begin(budget) for budget in (None, 1.0, 1000.0)] == [config] * 3
    fixed.begin(1.0)
    assert not fixed.state.feasible and not fixed.may_change
    assert fixed.decide("p4", 1e6) == config
    for _ in range(60):
        fixed.begin(1000.0)
        fixed.end(2 * fixed.latency_ms(config), 2 * (PRE_MS + POST_MS))
    assert fixed.state.inference_slowdown == pytest.approx(2.0, rel=0.02)
    fixed.set_depth("auto")
    assert fixed.depth == "auto"
    assert fixed.begin(1000.0) == EIGHT.full


def test_limits_bound_auto_alone() -> None:
    bounded = controller()
    bounded.set_limits(DepthLimits("EEFE.EEEE", "FFFF.FFEE"))
    assert str(bounded.begin(1000.0)) == "FFFF.FFEE"
    assert str(bounded.begin(0.0)) == "EEFE.EEEE"
    assert str(bounded.begin(None)) == "FFFF.FFEE"
    bounded.set_depth("base")
    assert bounded.begin(1000.0) == EIGHT.base
    for limits in (DepthLimits("FEEE.EEEE", "EFFF.FFFF"), DepthLimits("deep")):
        with pytest.raises(DepthConfigError):
            bounded.set_limits(limits)
    bounded.set_depth("auto")
    assert str(bounded.begin(1000.0)) == "FFFF.FFEE", "a refused limit changes nothing"


@pytest.mark.parametrize("miss_target", [0.0, 1.0, math.nan, -0.1])
def test_miss_target_out_of_range_is_refused(miss_target: float) -> None:
    with pytest.raises(ValueError, match="miss_target"):
        controller().set_miss_target(miss_target)


def test_less_risk_is_taken_where_fewer_misses_are_wanted() -> None:
    depths = []
    for miss_target in (1e-4, 0.05):
        machine = Machine(controller(), 1.05 * FULL_MS, scatter=0.08)
        machine.controller.set_miss_target(miss_target)
        depths.append(float(np.mean(machine.run(400, 1.0)[0])))
    assert depths[0] < depths[1]


def test_announced_clock_cap_counts_at_once() -> None:
    machine = Machine(controller(), 1.3 * FULL_MS)
    machine.run(100, 1.0)
    machine.controller.announce(math.log(1.7))
    machine.controller.announce(math.nan)
    config, late = machine.frame(1.7)
    assert config != EIGHT.full and not late


def test_whole_frames_are_chosen_among_those_that_are_compiled() -> None:
    texts = ("EEEE.EEEE", "EFFF.EEFE", "FFFF.FFFF")
    configs = [DepthConfig.parse(text) for text in texts]
    config_ms = dict(zip(configs, (12.0, 16.0, 20.0), strict=True))
    whole = DepthController(EIGHT, STEP_MS, {config: PRECISION[config] for config in configs}, config_ms=config_ms)
    for _ in range(100):
        whole.begin(1000.0)
        whole.end(whole.latency_ms(EIGHT.full))
    assert [str(whole.begin(budget)) for budget in (13.0, 17.0, 21.0)] == list(texts)
    assert [rung.latency_ms for rung in whole.ladder.rungs] == [12.0, 16.0, 20.0]


def test_steps_are_scaled_to_measured_configurations() -> None:
    scaled = controller(config_ms={EIGHT.base: 20.0, EIGHT.full: 52.0})
    assert scaled.latency_ms(DepthConfig.parse("FEEE.EEEE")) == pytest.approx(24.0)


def test_a_frame_is_hopeless_below_four_fifths_of_the_fastest_on_an_idle_machine() -> None:
    assert controller().is_hopeless(7.9)
    assert not controller().is_hopeless(8.1)


def test_a_profile_whose_full_path_is_faster_than_its_essential_one_is_doubted_and_buys_no_depth() -> None:
    twisted = {**STEP_MS, Step("p4", "full"): 0.2}
    doubting = DepthController(EIGHT, twisted, PRECISION, points=POINTS)
    assert any("p4 takes 0.2 ms at full" in text for text in doubting.doubts)
    assert doubting.latency_ms(EIGHT.with_full(["p4"])) == pytest.approx(10.0)
    assert not controller().doubts
    upside_down = controller(points=(), config_ms={EIGHT.base: 20.0, EIGHT.full: 10.0})
    assert upside_down.doubts == [
        "profile: full takes 10 ms, less than base with 20 ms; measure again on an idle machine"
    ]


def test_points_out_of_turn_change_nothing() -> None:
    deciding = controller()
    deciding.open(30.0)
    begun = deciding.decide("stem", PRE_MS)
    assert deciding.decide("pan_p5", 1.0) == begun, "two points are missing"
    later = deciding.decide("p4", 8.0)
    assert deciding.decide("stem", 9.0) == later, "it has run"
    assert deciding.decide("p4", 1e3) == later, "it was decided"


@pytest.mark.parametrize("depth", ["deep", "", "FFFF", "FFFF.FFFF.d1", "AUTO", DepthConfig((True,) * 4)])
def test_unknown_depth_is_refused_and_changes_nothing(depth: str | DepthConfig) -> None:
    unchanged = controller()
    with pytest.raises(DepthConfigError):
        unchanged.set_depth(depth)
    assert unchanged.depth == "auto"


@pytest.mark.parametrize("name", ["preprocess_ms", "postprocess_ms"])
@pytest.mark.parametrize("milliseconds", [-1.0, math.nan, math.inf])
def test_bad_host_time_is_refused(name: str, milliseconds: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is"):
        controller(**{name: milliseconds})


@pytest.mark.parametrize("milliseconds", [0.0, -1.0, math.nan, math.inf])
def test_bad_step_time_is_refused_by_name(milliseconds: float) -> None:
    with pytest.raises(ValueError, match=r"step_ms of p4\.full is"):
        DepthController(EIGHT, {**STEP_MS, Step("p4", "full"): milliseconds}, PRECISION)
    with pytest.raises(ValueError, match=r"step_ms lacks stem"):
        DepthController(EIGHT, {}, PRECISION)


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.5, math.inf])
def test_bad_precision_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match=r"average_precision of FFFF\.FFFF is"):
        DepthController(EIGHT, STEP_MS, {**PRECISION, EIGHT.full: value})
    with pytest.raises(ValueError, match=r"average_precision lacks EEEE\.EEEE"):
        DepthController(EIGHT, STEP_MS, {EIGHT.full: 0.5})


def small_controller(space: DepthSpace) -> DepthController:
    step_ms = {step: 1.0 + index % 3 for index, step in enumerate(space.steps)}
    precision = {config: 0.3 + 0.1 * config.depth_fraction + 0.01 * (config.exit or 0) for config in space.all()}
    return DepthController(space, step_ms, precision, preprocess_ms=1.0, postprocess_ms=1.0, points=("p4", "exits"))


TIMES = st.one_of(st.floats(), st.floats(0.01, 100.0))


@given(
    frames=st.lists(st.tuples(TIMES, TIMES, TIMES, TIMES, st.one_of(st.none(), TIMES)), max_size=40),
    depth=st.sampled_from(["auto", "base", "FEFE.FEFE.d2"]),
)
def test_never_fails_whatever_it_is_told(
    frames: list[tuple[float, float, float, float, float | None]], depth: str
) -> None:
    robust = small_controller(with_exits(3))
    robust.set_depth(depth)
    for budget_ms, start_ms, later_ms, inference_ms, host_ms in frames:
        assert robust.begin(budget_ms) in robust.space.all()
        robust.decide("stem", start_ms)
        robust.decide("p4", later_ms)
        assert robust.decide("exits", later_ms) in robust.space.all()
        robust.end(inference_ms, host_ms)
    state = robust.state
    assert all(map(math.isfinite, (state.inference_slowdown, state.host_slowdown, state.margin, state.price)))


@given(frames=st.lists(st.floats(0.5, 3.0), min_size=5, max_size=60), deadline_ms=st.floats(5, 60))
def test_is_deterministic(frames: list[float], deadline_ms: float) -> None:
    one, other = (Machine(controller(), deadline_ms) for _ in range(2))
    assert [one.frame(slowdown) for slowdown in frames] == [other.frame(slowdown) for slowdown in frames]
    assert one.controller.state == other.controller.state
    assert one.controller.state.as_dict()["depth"] == "auto"


@given(budgets=st.lists(st.floats(1, 100), min_size=2, max_size=2), slowdown=st.floats(0.5, 4))
def test_more_time_never_buys_a_worse_plan_where_times_are_certain(budgets: list[float], slowdown: float) -> None:
    settled = controller(points=())
    for _ in range(400):
        settled.begin(0.0)
        settled.end(10.0 * slowdown, 2.0 * slowdown)
    less, more = (PRECISION[settled.begin(budget)] for budget in sorted(budgets))
    assert less <= more

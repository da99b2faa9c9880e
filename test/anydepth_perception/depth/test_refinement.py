"""Refining a profile from served frames: what depth is to blame for, and not what the load is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from anydepth_perception.depth.refinement import Refinement
from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step
from anydepth_perception.depth.step_parts import parts_of, sum_up, take_apart

STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")
SPACE = DepthSpace.of(("stem", *STAGES, "head"), STAGES, STAGES)
LADDER = [
    DepthConfig.parse(text)
    for text in ("EEEE.EEEE", "FEEE.EEEE", "FFEE.EEEE", "FFFE.EEFE", "FFFF.EEFF", "FFFF.FFFF")
]


def machine(seed: int) -> dict[Step, float]:
    """True times, milliseconds: a full path takes a third to all of the essential one more."""
    rng = np.random.default_rng(seed)
    essential = {entry.name: rng.uniform(0.5, 2.0) for entry in SPACE.entries}
    return {
        step: essential[step.entry] * (rng.uniform(1.3, 2.0) if step.way == "full" else 1.0) for step in SPACE.steps
    }


def distorted(step_ms: Mapping[Step, float], seed: int, by: float) -> dict[Step, float]:
    rng = np.random.default_rng(seed)
    return sum_up(SPACE, {part: ms * math.exp(rng.normal(0.0, by)) for part, ms in take_apart(SPACE, step_ms).items()})


def contradiction(step_ms: Mapping[Step, float], truth: Mapping[Step, float]) -> float:
    """How far the ladder is off beside a common factor, as the largest relative error."""
    errors = [math.log(SPACE.total(step_ms, config) / SPACE.total(truth, config)) for config in LADDER]
    return max(abs(error - float(np.median(errors))) for error in errors)


def serve(
    refinement: Refinement, truth: Mapping[Step, float], frames: int, seed: int, load: float = 0.3
) -> Mapping[Step, float] | None:
    """Frames under a wandering load with stalls and jumps, at depths that give way to what the last frames took."""
    rng = np.random.default_rng(seed)
    slowdown, seen, refined = load, load, None
    for _ in range(frames):
        slowdown += 0.02 * (load - slowdown) + rng.normal(0.0, 0.03)
        slowdown += rng.choice((-0.3, 0.3)) if rng.random() < 0.005 else 0.0
        level = int(np.clip(round(2.5 - 3.0 * (seen - load) + rng.normal(0.0, 1.0)), 0, len(LADDER) - 1))
        stall = rng.exponential(0.3) if rng.random() < 0.03 else 0.0
        logarithm = slowdown + rng.normal(0.0, 0.03) + stall
        refinement.observe(LADDER[level], SPACE.total(truth, LADDER[level]) * math.exp(logarithm))
        seen = 0.5 * (seen + logarithm)
        if refinement.frames % 300 == 0:
            refined = refinement.refine() or refined
    return refined


@pytest.mark.parametrize("seed", range(5))
def test_wrong_profile_is_mended_by_frames_of_different_depths(seed: int) -> None:
    truth = machine(seed)
    wrong = distorted(truth, seed, 0.6)
    refined = serve(Refinement(SPACE, wrong), truth, 1500, seed)
    assert refined is not None
    assert contradiction(refined, truth) < max(0.03, 0.6 * contradiction(wrong, truth))


@pytest.mark.parametrize("seed", range(5))
def test_right_profile_stays_right_under_any_load(seed: int) -> None:
    truth = machine(seed)
    refined = serve(Refinement(SPACE, truth), truth, 1500, seed) or truth
    assert contradiction(refined, truth) < 0.03


def test_frames_of_one_depth_tell_nothing_of_the_others_and_leave_the_doubt() -> None:
    truth, refinement = machine(0), Refinement(SPACE, machine(0))
    doubt = refinement.uncertainty
    for _ in range(1000):
        refinement.observe(SPACE.full, 1.5 * SPACE.total(truth, SPACE.full))
    assert refinement.refine() is None
    assert refinement.uncertainty > 0.8 * doubt


def test_doubt_about_the_span_of_the_ladder_goes_with_frames_at_both_ends() -> None:
    truth, refinement = machine(0), Refinement(SPACE, machine(0))
    for number in range(600):
        config = (SPACE.base, SPACE.full)[number % 2]
        refinement.observe(config, SPACE.total(truth, config))
    assert refinement.uncertainty < 0.01


def test_profile_of_a_busy_machine_comes_down_to_what_frames_really_take_and_never_goes_up() -> None:
    truth = machine(1)
    slow = {step: 2.0 * ms for step, ms in truth.items()}
    refined = serve(Refinement(SPACE, slow), truth, 3000, 1, load=0.0)
    assert refined is not None
    assert SPACE.total(refined, SPACE.full) == pytest.approx(SPACE.total(truth, SPACE.full), rel=0.15)
    loaded = serve(Refinement(SPACE, truth), truth, 1500, 1, load=0.7) or truth
    assert SPACE.total(loaded, SPACE.full) == pytest.approx(SPACE.total(truth, SPACE.full), rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_refined_times_are_in_order_whatever_was_seen(seed: int) -> None:
    rng, refinement = np.random.default_rng(seed), Refinement(SPACE, machine(seed))
    for _ in range(500):
        refinement.observe(LADDER[rng.integers(len(LADDER))], float(np.exp(rng.normal(2.0, 1.0))))
    refined = refinement.refine() or machine(seed)
    for stage in STAGES:
        assert 0.0 < refined[Step(stage, "essential")] < refined[Step(stage, "full")]


@pytest.mark.parametrize("milliseconds", [0.0, -1.0, math.nan, math.inf])
def test_times_that_are_none_teach_nothing(milliseconds: float) -> None:
    refinement = Refinement(SPACE, machine(0))
    refinement.observe(SPACE.full, milliseconds)
    assert refinement.frames == 0 and refinement.refine() is None


def test_parts_of_a_configuration_add_up_to_its_steps_with_exits_too() -> None:
    space = DepthSpace.of(("stem", "p3", "exits"), ("p3",), ("p3",), 3)
    step_ms = {step: float(number + 1) for number, step in enumerate(space.steps)}
    added = take_apart(space, step_ms)
    assert sum_up(space, added) == pytest.approx(step_ms)
    for config in space.all():
        assert sum(added[part] for part in parts_of(space, config)) == pytest.approx(space.total(step_ms, config))

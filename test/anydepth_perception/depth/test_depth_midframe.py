"""Decisions within a frame: what no longer fits is dropped from the end, and nothing is ever added."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig, space_of_eight
from anydepth_perception.depth.ladder import Rung
from anydepth_perception.depth.midframe import MidframePlanner
from anydepth_perception.execution import Decision

GROUPS = (("stem", "p2", "p3", "p4"), ("p5", "fpn_p4", "fpn_p3"), ("pan_p4", "pan_p5"), ("head",))
FULL = DepthConfig.full()
ESSENTIAL_MS, REFINEMENT_MS = 1.0, 2.0
FULL_MS = 10 * ESSENTIAL_MS + 8 * REFINEMENT_MS
PLAN = Rung(FULL, FULL_MS, 0.5)


def milliseconds(manifest) -> dict[str, float]:
    """Every segment takes 1 ms, on the full path 3 ms."""
    return {name: ESSENTIAL_MS + REFINEMENT_MS * name.endswith(".full") for name in manifest.segments}


@pytest.fixture(scope="module")
def planner(tiny_bundle_path) -> MidframePlanner:
    bundle = Bundle.load(tiny_bundle_path)
    return MidframePlanner(bundle, milliseconds(bundle.manifest))


def at_point(index: int, elapsed_ms: float, config: DepthConfig = FULL) -> Decision:
    return Decision(GROUPS[index][0], config, elapsed_ms, GROUPS[index:])


def test_plan_that_fits_stays(planner):
    decide = planner.decide(PLAN, budget_ms=FULL_MS + 2.0, reserve_ms=1.0, slowdown=1.0)
    assert decide(at_point(0, 1.0)) == FULL


@pytest.mark.parametrize(
    ("missing_ms", "left"),
    [(0.5, "FFFF.FFFE"), (1.5, "FFFF.FFFE"), (2.5, "FFFF.FFEE"), (11.0, "FFEE.EEEE"), (99.0, "EEEE.EEEE")],
)
def test_latest_refinements_are_dropped_until_the_rest_fits(planner, missing_ms, left):
    decide = planner.decide(PLAN, budget_ms=FULL_MS - missing_ms, reserve_ms=0.0, slowdown=1.0)
    assert decide(at_point(0, 0.0)) == DepthConfig.parse(left)


def test_time_after_the_inference_is_kept_free(planner):
    decide = planner.decide(PLAN, budget_ms=FULL_MS, reserve_ms=3.0, slowdown=1.0)
    assert decide(at_point(0, 0.0)) == DepthConfig.parse("FFFF.FFEE")


def test_slowdown_known_before_the_frame_counts(planner):
    decide = planner.decide(PLAN, budget_ms=2 * (FULL_MS - REFINEMENT_MS), reserve_ms=0.0, slowdown=2.0)
    assert decide(at_point(0, 0.0)) == DepthConfig.parse("FFFF.FFFE")


def test_slowdown_within_the_frame_counts_from_the_next_point_on(planner):
    # Twice as slow as profiled: the first group, 10 ms, took 20; what is left, 16 ms, would take 32.
    decide = planner.decide(PLAN, budget_ms=20.0 + 32.0 - 2 * REFINEMENT_MS, reserve_ms=0.0, slowdown=1.0)
    assert decide(at_point(0, 0.0)) == FULL
    assert decide(at_point(1, 20.0)) == DepthConfig.parse("FFFF.FFFE")


def test_time_before_the_inference_is_no_slowdown(planner):
    decide = planner.decide(PLAN, budget_ms=30.0 + FULL_MS, reserve_ms=0.0, slowdown=1.0)
    assert decide(at_point(0, 30.0)) == FULL
    assert decide(at_point(1, 40.0)) == FULL


def test_what_has_run_is_not_touched(planner):
    decide = planner.decide(PLAN, budget_ms=1.0, reserve_ms=0.0, slowdown=1.0)
    decide(at_point(0, 0.0))
    assert decide(at_point(2, 50.0)) == DepthConfig.parse("FFFF.FFEE")


def test_a_dropped_refinement_does_not_come_back(planner):
    decide = planner.decide(PLAN, budget_ms=1000.0, reserve_ms=0.0, slowdown=1.0)
    shallow = DepthConfig.parse("FFEE.EEEE")
    assert decide(at_point(1, 0.0, shallow)) == shallow


def test_segments_are_scaled_to_the_time_of_the_plan(planner):
    plan = replace(PLAN, latency_ms=2 * FULL_MS)
    assert planner.latency_ms(FULL, plan) == pytest.approx(2 * FULL_MS)
    assert planner.latency_ms(DepthConfig.base(), plan) == pytest.approx(2 * 10 * ESSENTIAL_MS)
    decide = planner.decide(plan, budget_ms=2 * FULL_MS - 1.0, reserve_ms=0.0, slowdown=1.0)
    assert decide(at_point(0, 0.0)) == DepthConfig.parse("FFFF.FFFE")


def test_decoder_exit_is_dropped_first_and_not_below_that_of_base():
    names = ["neck", "d1", "d2", "d3", "d4"]
    manifest = SimpleNamespace(
        space=SimpleNamespace(names=("neck", "exits")),
        stages={},
        exits={number: tuple(f"d{index}" for index in range(1, number + 1)) for number in (1, 2, 3, 4)},
        segments=dict.fromkeys(names),
    )
    planner = MidframePlanner(SimpleNamespace(manifest=manifest, space=space_of_eight(4)), dict.fromkeys(names, 1.0))
    full = DepthConfig.full(4)
    for budget_ms, exit_ in ((5.0, 4), (4.5, 3), (1.0, 3)):
        decide = planner.decide(Rung(full, 5.0, 0.5), budget_ms, reserve_ms=0.0, slowdown=1.0)
        assert decide(Decision("neck", full, 0.0, (("neck",), ("exits",)))).exit == exit_

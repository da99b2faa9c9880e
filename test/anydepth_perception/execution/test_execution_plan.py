"""The plan of staged execution: groups at the decision points, their combinations, the tensors that cross."""

from __future__ import annotations

from pathlib import Path

import pytest

from anydepth_perception.bundle import Bundle, Manifest
from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.execution.plan import (
    DecisionPointError,
    Plan,
    covering_configs,
    default_decision_points,
    make_plan,
    split,
)


@pytest.fixture(scope="module")
def manifest(tiny_bundle_path: Path) -> Manifest:
    return Bundle.load(tiny_bundle_path).manifest


def test_default_points_are_after_p4_before_the_bottom_up_path_and_before_the_head(manifest: Manifest) -> None:
    assert default_decision_points(manifest) == ("p5", "pan_p4", "head")


def test_the_pipeline_is_cut_before_each_point_in_its_own_order() -> None:
    groups = split(("a", "b", "c", "d"), ("d", "b"))
    assert [group.entries for group in groups] == [("a",), ("b", "c"), ("d",)]


def test_a_point_at_the_start_changes_nothing() -> None:
    assert split(("a", "b"), ("a",)) == split(("a", "b"), ())


def test_unknown_point_is_refused_with_the_accepted_ones(manifest: Manifest) -> None:
    with pytest.raises(DecisionPointError, match="decision point 'p6' is not one of stem, p2, p3"):
        make_plan(manifest, ("p6",))


def test_points_too_far_apart_are_refused(manifest: Manifest) -> None:
    with pytest.raises(DecisionPointError, match="256 combinations of paths from stem to pan_p5, at most 64"):
        make_plan(manifest, ("head",))


def test_a_group_has_a_variant_for_each_combination_of_its_stages(manifest: Manifest) -> None:
    plan = make_plan(manifest, default_decision_points(manifest))
    assert [len(variants) for variants in plan.variants] == [8, 8, 4, 1]


def test_a_variant_runs_the_segments_of_the_configuration(manifest: Manifest) -> None:
    plan = make_plan(manifest, default_decision_points(manifest))
    config = DepthConfig.parse("FEFE.EFFE")
    names: list[str] = []
    for group, variants in zip(plan.groups, plan.variants, strict=True):
        (variant,) = [variant for variant in variants if variant.choice == group.choice(config)]
        names += [segment.name for segment in variant.segments]
    assert names == manifest.segment_names(config)


def test_lives_follow_from_what_reads_each_tensor(manifest: Manifest) -> None:
    plan = make_plan(manifest, default_decision_points(manifest))
    assert {life.spec.name: (life.first, life.last) for life in plan.lives} == {
        "p3": (0, 1),
        "p4": (0, 1),
        "p5": (1, 2),
        "fpn_p4": (1, 2),
        "fpn_p3": (1, 3),
        "pan_p4": (2, 3),
        "pan_p5": (2, 3),
        "boxes": (3, 4),
        "logits": (3, 4),
    }


def run_by(plan: Plan, configs: list[DepthConfig]) -> set[str]:
    """Names of the variants that the configurations run."""
    return {
        variant.name
        for config in configs
        for group, variants in zip(plan.groups, plan.variants, strict=True)
        for variant in variants
        if variant.choice == group.choice(config)
    }


def test_covering_configurations_run_every_variant(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    plan = make_plan(bundle.manifest, default_decision_points(bundle.manifest))
    names = {variant.name for variants in plan.variants for variant in variants}
    configs = covering_configs(plan, bundle, names)
    assert run_by(plan, configs) == names
    assert len(configs) == max(len(variants) for variants in plan.variants)


def test_preferred_configurations_are_taken_where_they_help(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    plan = make_plan(bundle.manifest, default_decision_points(bundle.manifest))
    full, most = bundle.full, DepthConfig.parse("FFFF.FFEE")
    last = {plan.variants[2][-1].name}  # both stages of the bottom-up path full
    assert covering_configs(plan, bundle, last, [most, full, bundle.base]) == [full]
    assert covering_configs(plan, bundle, set(), [full]) == []


def test_one_variant_is_covered_by_one_configuration(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    plan = make_plan(bundle.manifest, default_decision_points(bundle.manifest))
    for variants in plan.variants:
        for variant in variants:
            configs = covering_configs(plan, bundle, {variant.name})
            assert len(configs) == 1
            assert variant.name in run_by(plan, configs)

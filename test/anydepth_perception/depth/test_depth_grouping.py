"""Groups between decision points: where they are cut, the ways through them, configurations that cover all ways."""

from __future__ import annotations

import pytest
from spaces import EIGHT, with_exits

from anydepth_perception.depth.grouping import Grouping
from anydepth_perception.depth.space import DecisionPointError, DepthConfig


@pytest.fixture(scope="module")
def grouping() -> Grouping:
    return Grouping(EIGHT, EIGHT.default_points)


def test_entries_are_cut_before_each_point_in_their_own_order() -> None:
    assert Grouping(EIGHT, ("pan_p4", "p3")).groups == (
        ("stem", "p2"),
        ("p3", "p4", "p5", "fpn_p4", "fpn_p3"),
        ("pan_p4", "pan_p5", "head"),
    )


def test_a_point_at_the_start_changes_nothing() -> None:
    assert Grouping(EIGHT, ("stem",)).groups == Grouping(EIGHT).groups == (EIGHT.names,)


def test_unknown_point_is_refused_with_the_accepted_ones() -> None:
    with pytest.raises(DecisionPointError, match="decision point 'p6' is not one of stem, p2, p3"):
        Grouping(EIGHT, ("p6",))


def test_points_too_far_apart_are_refused() -> None:
    with pytest.raises(DecisionPointError, match="256 combinations of paths from stem to pan_p5, at most 64"):
        Grouping(EIGHT, ("head",))


def test_a_group_has_a_way_for_each_combination_of_its_stages(grouping: Grouping) -> None:
    ways = list(grouping.all_ways())
    assert [sum(way[0].entry == group[0] for way in ways) for group in grouping.groups] == [4, 4, 4, 4]


def test_the_ways_of_a_configuration_are_its_route(grouping: Grouping) -> None:
    config = DepthConfig.parse("FEFE.EFFE")
    ways = grouping.ways_of(config)
    assert tuple(step for way in ways for step in way) == EIGHT.route(config)
    assert set(ways) <= set(grouping.all_ways())


@pytest.mark.parametrize("space", [EIGHT, with_exits(6)], ids=["yolo", "detr"])
def test_covering_configurations_take_every_way(space) -> None:
    grouping = Grouping(space, space.default_points)
    ways = list(grouping.all_ways())
    configs = grouping.covering(ways)
    assert {way for config in configs for way in grouping.ways_of(config)} == set(ways)
    assert len(configs) == max(sum(way[0].entry == group[0] for way in ways) for group in grouping.groups)


def test_preferred_configurations_are_taken_where_they_help(grouping: Grouping) -> None:
    most = DepthConfig.parse("FFFF.FFEE")
    last = [grouping.ways_of(EIGHT.full)[3]]  # both stages of the bottom-up path full
    assert grouping.covering(last, [most, EIGHT.full, EIGHT.base]) == [EIGHT.full]
    assert grouping.covering([], [EIGHT.full]) == []


def test_one_way_is_covered_by_one_configuration(grouping: Grouping) -> None:
    for way in grouping.all_ways():
        (config,) = grouping.covering([way])
        assert way in grouping.ways_of(config)

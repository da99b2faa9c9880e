"""Depth spaces: configurations and their text form, what runs for them, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import EIGHT, FOUR, STAGES, with_exits

from anydepth_perception.depth.space import (
    DecisionPointError,
    DepthConfig,
    DepthConfigError,
    DepthSpace,
    Entry,
    Step,
)


@given(paths=st.lists(st.booleans(), min_size=1, max_size=11), exit_number=st.one_of(st.none(), st.integers(1, 99)))
def test_text_form_reads_back(paths: list[bool], exit_number: int | None) -> None:
    config = DepthConfig(tuple(paths), exit_number)
    assert DepthConfig.parse(str(config)) == config


def test_letters_stand_in_the_order_of_the_stages_and_a_dot_after_every_four() -> None:
    config = EIGHT.parse("FFEE.EEEF")
    assert [stage for stage in STAGES if EIGHT.path(config, stage) == "full"] == ["p2", "p3", "pan_p5"]
    assert config.depth_fraction == 3 / 8
    assert str(DepthConfig((True,) * 6, 2)) == "FFFF.FF.d2"


def test_aliases() -> None:
    six = with_exits(6)
    assert [str(EIGHT.parse(text)) for text in ("full", "base")] == ["FFFF.FFFF", "EEEE.EEEE"]
    assert [str(six.parse(text)) for text in ("full", "base")] == ["FFFF.FFFF.d6", "EEEE.EEEE.d4"]
    assert [str(FOUR.parse(text)) for text in ("full", "base")] == ["FFFF.d6", "FEEE.d4"]


def test_exit_that_is_left_out_is_the_last() -> None:
    assert str(with_exits(6).parse("FFEE.FFEE")) == "FFEE.FFEE.d6"


@pytest.mark.parametrize(("num_exits", "expected"), [(1, 1), (3, 2), (4, 3), (6, 4)])
def test_exit_of_the_base_net_is_two_thirds_rounded_up(num_exits: int, expected: int) -> None:
    assert with_exits(num_exits).base.exit == expected


def test_exit_of_the_base_net_may_be_another() -> None:
    space = DepthSpace(FOUR.entries, base_exit=3)
    assert str(space.base) == "FEEE.d3"
    with pytest.raises(ValueError, match="base exit d7 is out of range, there are d1 to d6"):
        DepthSpace(FOUR.entries, base_exit=7)


@pytest.mark.parametrize(
    "text", ["", "FFFFFFFF", "FFF.FFFFF", "ffff.ffff", "FFFF.FFFX", "FFFF.FFFF.d", "FFFF.", " full", "d4", "auto"]
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(DepthConfigError, match="is not a depth configuration; expected"):
        EIGHT.parse(text)


@pytest.mark.parametrize(("text", "num_exits"), [("FFFF.FFFF.d0", 6), ("FFFF.FFFF.d7", 6)])
def test_exit_that_is_not_there_is_refused(text: str, num_exits: int) -> None:
    with pytest.raises(DepthConfigError, match=r"exit d\d is out of range"):
        with_exits(num_exits).parse(text)


def test_exit_of_a_network_without_a_decoder_is_refused() -> None:
    with pytest.raises(DepthConfigError, match="names exit d1, but this network has no decoder exits"):
        EIGHT.parse("FFFF.FFFF.d1")


def test_configuration_without_the_exit_it_needs_is_refused() -> None:
    with pytest.raises(DepthConfigError, match="needs a decoder exit, d1 to d6"):
        FOUR.route(DepthConfig((True,) * 4))


def test_wrong_number_of_stages_is_refused_with_their_names() -> None:
    with pytest.raises(DepthConfigError, match=r"FFFF\.FFF has 7 stages, this network has 8: p2, p3"):
        EIGHT.parse("FFFF.FFF")


def test_stage_with_nothing_to_skip_runs_full_whatever_its_letter() -> None:
    config = FOUR.parse("EEEE.d1")
    assert str(config) == "FEEE.d1"
    assert FOUR.route(DepthConfig((False,) * 4, 1)) == FOUR.route(config)
    assert FOUR.path(DepthConfig((False,) * 4, 1), "p2") == "full"


@pytest.mark.parametrize(("space", "count"), [(EIGHT, 256), (with_exits(6), 1536), (FOUR, 48)])
def test_all_configurations_are_listed_once(space: DepthSpace, count: int) -> None:
    configs = list(space.all())
    assert len(configs) == len(set(configs)) == count
    assert {space.full, space.base} <= set(configs)
    assert len({space.route(config) for config in configs}) == count


def test_route_has_a_step_for_every_entry_in_order() -> None:
    assert [str(step) for step in FOUR.route(FOUR.parse("FEFE.d3"))] == [
        "stem", "p2.full", "p3.essential", "p4.full", "p5.essential", "exits.d3"
    ]


def test_a_configuration_comes_back_from_its_route() -> None:
    for config in FOUR.all():
        assert FOUR.config(FOUR.route(config)) == config


def test_total_adds_up_the_steps_that_run() -> None:
    costs = dict.fromkeys(FOUR.steps, 1.0) | {Step("p4", "full"): 10.0, Step("exits", "d2"): 100.0}
    assert FOUR.total(costs, FOUR.parse("FFFF.d2")) == 4 + 10 + 100
    assert FOUR.total(costs, FOUR.parse("base")) == 6


def test_default_points_are_before_every_other_stage_or_before_the_decoder_s_layers() -> None:
    assert EIGHT.default_points == ("p4", "fpn_p4", "pan_p4")
    assert with_exits(6).default_points == ("p4", "fpn_p3", "exits")
    assert FOUR.default_points == ("p4", "exits")


def test_completions_have_run_as_the_prefix_did() -> None:
    prefix = FOUR.parse("FFEF.d5")
    found = {str(config) for config in FOUR.completions("p5", prefix)}
    assert found == {f"FFE{last}.d{number}" for last in "EF" for number in range(1, 7)}
    assert list(FOUR.completions("stem", prefix)) == list(FOUR.all())
    with pytest.raises(DecisionPointError, match="'neck' is not one of stem"):
        FOUR.completions("neck", prefix)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([Entry("a")], "none of the entries a is a stage"),
        ([Entry("a", ("full",)), Entry("a")], "entry 'a' is there twice"),
        ([Entry("a", ("full", "essential"))], "expected one of"),
        ([Entry("a", ("full",)), Entry("exits", ("d2",))], "expected one of"),
        ([Entry("a", ("full",)), Entry("exits", ())], "expected one of"),
    ],
)
def test_entries_that_make_no_network_are_refused(entries: list[Entry], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DepthSpace(tuple(entries))

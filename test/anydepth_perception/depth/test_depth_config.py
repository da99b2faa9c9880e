"""Depth configurations: their text form, their aliases, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydepth_perception.depth.config import STAGES, DepthConfig, DepthConfigError, all_configs, base_exit


@given(paths=st.tuples(*[st.booleans()] * 8), exit_index=st.one_of(st.none(), st.integers(1, 6)))
def test_text_form_reads_back(paths: tuple[bool, ...], exit_index: int | None) -> None:
    config = DepthConfig(paths, exit_index)
    assert DepthConfig.parse(str(config), 6 if exit_index else 0) == config


def test_letters_stand_in_the_order_of_the_stages() -> None:
    config = DepthConfig.parse("FFEE.EEEF")
    assert [stage for stage in STAGES if config.path(stage) == "full"] == ["p2", "p3", "pan_p5"]
    assert config.depth_fraction == 3 / 8


def test_aliases() -> None:
    assert str(DepthConfig.parse("full")) == "FFFF.FFFF"
    assert str(DepthConfig.parse("base")) == "EEEE.EEEE"
    assert str(DepthConfig.parse("full", 6)) == "FFFF.FFFF.d6"
    assert str(DepthConfig.parse("base", 6)) == "EEEE.EEEE.d4"
    assert str(DepthConfig.parse("FFEE.FFEE", 6)) == "FFEE.FFEE.d6"


@pytest.mark.parametrize(("num_exits", "expected"), [(0, None), (3, 2), (4, 3), (6, 4)])
def test_exit_of_the_base_net_is_two_thirds_rounded_up(num_exits: int, expected: int | None) -> None:
    assert base_exit(num_exits) == expected


@pytest.mark.parametrize("text", ["", "FFFFFFFF", "ffff.ffff", "FFFF.FFFX", "FFFF.FFFF.d", " full"])
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(DepthConfigError, match="is not a depth configuration; expected"):
        DepthConfig.parse(text, 6)


@pytest.mark.parametrize(("text", "num_exits"), [("FFFF.FFFF.d1", 0), ("FFFF.FFFF.d0", 6), ("FFFF.FFFF.d7", 6)])
def test_exit_that_is_not_there_is_refused(text: str, num_exits: int) -> None:
    with pytest.raises(DepthConfigError, match="exit d"):
        DepthConfig.parse(text, num_exits)


def test_wrong_number_of_paths_is_refused() -> None:
    with pytest.raises(DepthConfigError, match="has 7 stages, this network has 8"):
        DepthConfig.parse("FFFF.FFF", 0)


@pytest.mark.parametrize(("num_exits", "count"), [(0, 256), (6, 1536)])
def test_all_configurations_are_listed_once(num_exits: int, count: int) -> None:
    configs = list(all_configs(num_exits))
    assert len(configs) == len(set(configs)) == count
    assert {DepthConfig.full(num_exits), DepthConfig.base(num_exits)} <= set(configs)

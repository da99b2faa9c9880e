"""What the tools take from the environment and set in it."""

from __future__ import annotations

import os

import pytest

from anydepth_perception.tools.environment import bench_seconds, use_own_ros_domain


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_bad_time_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"BENCH_SECONDS is '{text}', expected a number of seconds above 0"):
        bench_seconds(text, 60.0)


def test_time_limit_has_a_default() -> None:
    assert bench_seconds("", 60.0) == 60.0
    assert bench_seconds("12.5", 60.0) == 12.5


@pytest.mark.parametrize("unless_chosen", [True, False])
def test_a_domain_that_the_user_chose_stays_only_where_it_may(
    monkeypatch: pytest.MonkeyPatch, unless_chosen: bool
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "77")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "")  # so that it is put back
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE")
    use_own_ros_domain(unless_chosen=unless_chosen)
    assert os.environ["ROS_DOMAIN_ID"] == ("77" if unless_chosen else str(os.getpid() % 100 + 1))
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"

"""The benchmark's plan: the time given is kept, and nothing is left out without a word."""

from __future__ import annotations

import pytest

from training.bench.plan import NotMeasured, Part, run_parts


class Clock:
    """A clock that parts move on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def part(clock: Clock, name: str, setup_s: float, measure_s: float, *, really_s: float | None = None) -> Part:
    """A part that takes its setup time (or `really_s`) and what it was granted, which is its figure."""

    def measure(granted: float) -> dict[str, float]:
        clock.now += (setup_s if really_s is None else really_s) + granted
        return {"granted": granted}

    return Part(name, name, setup_s, measure_s, measure)


def test_with_time_enough_every_part_has_all_it_wants() -> None:
    clock = Clock()
    outcome = run_parts([part(clock, "a", 5, 10), part(clock, "b", 5, 30)], 1000, clock)
    assert outcome.figures == {"a": {"granted": 10}, "b": {"granted": 30}}


def test_with_less_time_all_measure_the_same_share() -> None:
    clock = Clock()
    outcome = run_parts([part(clock, "a", 5, 10), part(clock, "b", 5, 30)], 30, clock)
    assert outcome.figures == {"a": {"granted": pytest.approx(5)}, "b": {"granted": pytest.approx(15)}}
    assert clock.now == pytest.approx(30)


def test_what_does_not_fit_is_left_out_and_smaller_parts_behind_it_run() -> None:
    clock = Clock()
    outcome = run_parts([part(clock, "a", 5, 10), part(clock, "large", 60, 30), part(clock, "b", 1, 4)], 20, clock)
    assert outcome.figures["large"] is None
    assert outcome.left_out == {"large": "it needs about 68 s, 5 s were left"}
    assert outcome.figures["b"] == {"granted": 4}


def test_slow_setup_is_expected_of_what_follows() -> None:
    clock = Clock()
    slow = part(clock, "slow", 10, 10, really_s=30)
    outcome = run_parts([slow, part(clock, "b", 10, 10)], 60, clock)
    assert outcome.left_out == {"b": "it needs about 32 s, 20 s were left"}


def test_no_time_leaves_out_everything() -> None:
    clock = Clock()
    outcome = run_parts([part(clock, "a", 5, 10), part(clock, "b", 1, 1)], -1, clock)
    assert outcome.figures == {"a": None, "b": None}
    assert set(outcome.left_out) == {"a", "b"}


def test_a_part_that_cannot_be_measured_says_why() -> None:
    def refuse(granted: float) -> dict[str, float]:
        raise NotMeasured("no such network here")

    outcome = run_parts([Part("a", "a", 1, 1, refuse)], 10, Clock())
    assert (outcome.left_out, outcome.failed) == ({"a": "no such network here"}, [])


def test_a_fault_in_one_part_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(granted: float) -> dict[str, float]:
        raise RuntimeError("broken")

    clock = Clock()
    outcome = run_parts([Part("a", "a", 1, 1, fail), part(clock, "b", 1, 1)], 10, clock)
    assert outcome.figures == {"a": None, "b": {"granted": 1}}
    assert (outcome.left_out, outcome.failed) == ({"a": "RuntimeError: broken"}, ["a"])
    assert "Traceback" in capsys.readouterr().err

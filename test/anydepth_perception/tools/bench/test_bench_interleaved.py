"""Timing in turns: how often each contender runs, in which order, and what a ratio is of."""

from __future__ import annotations

import time

import pytest

from anydepth_perception.tools.bench.interleaved import measure_in_turns, median_ratio


def test_every_contender_has_one_turn_a_round() -> None:
    ran: list[str] = []
    contenders = {name: lambda name=name: ran.append(name) for name in "abc"}
    times = measure_in_turns(contenders, min_rounds=4, max_rounds=4, frames=2)
    turns = [ran[start : start + 3] for start in range(0, len(ran), 3)]
    assert all(len(set(turn)) == 1 for turn in turns)
    rounds = ["".join(turn[0] for turn in turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert [sorted(names) for names in rounds] == [list("abc")] * 4
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 4)


def test_the_order_changes_from_round_to_round() -> None:
    ran: list[str] = []
    measure_in_turns({name: lambda name=name: ran.append(name) for name in "abc"}, max_rounds=8, frames=1)
    assert len({tuple(ran[start : start + 6]) for start in range(0, len(ran), 6)}) > 1


def test_the_first_run_of_a_turn_is_not_counted() -> None:
    calls = iter(range(100))

    def slow_when_others_ran_before() -> None:
        if next(calls) % 3 == 0:
            time.sleep(0.2)

    times = measure_in_turns({"a": slow_when_others_ran_before}, min_rounds=2, max_rounds=2, frames=2)
    assert max(times["a"]) < 100


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (1e9, 5)])
def test_time_ends_it_between_the_fewest_and_the_most_rounds(seconds: float, rounds: int) -> None:
    times = measure_in_turns({"a": int}, seconds=seconds, min_rounds=3, max_rounds=5)
    assert len(times["a"]) == rounds


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    # A machine that gets ten times slower changes no ratio; medians of each would give 20 / 2.
    times = {"a": [2.0, 20.0, 40.0], "b": [1.0, 10.0, 2.0]}
    assert median_ratio(times, "a", "b") == 2.0

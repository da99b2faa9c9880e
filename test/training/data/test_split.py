"""The split: every class on both sides, the same pictures together, the same draw every time."""

from __future__ import annotations

from training.data.split import draw_validation

COMMON, RARE = frozenset({"common"}), frozenset({"common", "rare"})


def test_a_rare_class_is_on_both_sides() -> None:
    for seed in range(20):
        classes = [COMMON] * 98 + [RARE] * 2
        drawn = draw_validation(classes, [str(index) for index in range(100)], seed=seed)
        assert sum(drawn) == 15
        assert sorted(drawn[98:]) == [False, True]


def test_the_same_picture_stays_on_one_side() -> None:
    for seed in range(20):
        drawn = draw_validation([COMMON] * 40, [str(index // 4) for index in range(40)], seed=seed)
        assert all(len(set(drawn[first : first + 4])) == 1 for first in range(0, 40, 4))
        assert sum(drawn) == 8


def test_the_draw_is_the_same_every_time_and_differs_by_seed() -> None:
    groups = [str(index) for index in range(50)]
    draws = [draw_validation([COMMON] * 50, groups, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_single_picture_trains() -> None:
    assert draw_validation([COMMON], ["0"]) == [False]

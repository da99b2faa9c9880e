"""Charts: every point where it belongs, tails, labels, and no crash on strange numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anydepth_perception.tools.plots import HEIGHT, WIDTH, Point, Series, draw_chart

GREEN = (0, 200, 0)


def chart(*points: Point, joined: bool = False) -> np.ndarray:
    return draw_chart("title", "subtitle", ("x", "y"), [Series("series", points, GREEN, joined)])


def green(picture: np.ndarray) -> np.ndarray:
    """Where the picture is green, below the legend, as [n, 2] of x and y."""
    found = (picture[..., 1] > 150) & (picture[..., 0] < 60) & (picture[..., 2] < 60)
    found[:110] = False
    return np.argwhere(found)[:, ::-1]


def test_picture_has_its_size_and_a_white_ground() -> None:
    picture = chart(Point(1, 1))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert np.median(picture) == 255


def test_points_lie_right_and_above_of_smaller_ones() -> None:
    places = green(chart(Point(10, 0.1), Point(20, 0.5)))
    left, right = places[places[:, 0] < WIDTH / 2], places[places[:, 0] > WIDTH / 2]
    assert len(left) > 20 and len(right) > 20
    assert left[:, 1].min() > right[:, 1].max()


def test_hollow_point_has_a_white_middle() -> None:
    picture = chart(Point(1, 1, filled=False), Point(2, 2))
    places = green(picture)
    hollow = places[places[:, 0] < WIDTH / 2]
    x, y = np.round(hollow.mean(axis=0)).astype(int)
    assert picture[y, x].tolist() == [255, 255, 255]


def test_joined_points_have_a_line_between_them() -> None:
    ends = Point(0, 0), Point(1, 1)
    middle = [np.abs(green(chart(*ends, joined=joined)) - (627, 389)).sum(axis=1).min() for joined in (True, False)]
    assert middle[0] < 5 < middle[1]


def test_tail_reaches_to_the_right_of_its_point() -> None:
    without, with_tail = (chart(Point(0, 0), Point(1, 1, tail_x=tail)) for tail in (None, 1.9))
    row = green(with_tail)[:, 1].min() + 5
    coloured = np.flatnonzero(with_tail[row - 2 : row + 3].min(axis=(0, 2)) < 225)
    assert coloured.max() - green(with_tail)[:, 0].max() > 200
    assert green(without)[:, 0].max() > green(with_tail)[:, 0].max()


def test_far_tail_does_not_push_the_points_together() -> None:
    places = green(chart(Point(10, 0), Point(20, 1, tail_x=1e6)))
    assert places[:, 0].max() - places[:, 0].min() > WIDTH / 3


@pytest.mark.parametrize(
    "points",
    [
        [],
        [Point(0, 0)],
        [Point(5, 0.4), Point(5, 0.4)],
        [Point(math.nan, 1), Point(1, math.inf), Point(1, 1, tail_x=math.inf)],
        [Point(1e-9, 1e-12), Point(2e-9, 3e-12)],
        [Point(1e12, 1e12, tail_x=1e15), Point(-1e12, 0)],
    ],
)
def test_any_points_make_a_picture(points: list[Point]) -> None:
    assert chart(*points, joined=True).shape == (HEIGHT, WIDTH, 3)


def test_text_beyond_ascii_is_no_error() -> None:
    assert draw_chart("\u00fcber \u6df1\u3055", "", ("ms", "AP"), []).shape == (HEIGHT, WIDTH, 3)

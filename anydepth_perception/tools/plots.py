"""Charts drawn with OpenCV, which the robot has: points and lines over two axes, with tails, labels and a legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

Color = tuple[int, int, int]
"""Blue, green, red in [0, 255]."""

INK: Color = (60, 50, 45)
MUTED: Color = (150, 140, 135)
GRID: Color = (232, 228, 225)
BLUE: Color = (150, 110, 30)
RED: Color = (60, 60, 220)

WIDTH, HEIGHT = 1200, 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 1170, 128, 650
_SCALE = 2
"""Charts are drawn this many times larger and then reduced, for smooth text and lines."""


@dataclass(frozen=True)
class Point:
    """A point at (x, y); a thin bar runs on to `tail_x`; hollow where not `filled`."""

    x: float
    y: float
    tail_x: float | None = None
    filled: bool = True
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one colour under one name in the legend, joined by a line where `joined`; `radius` in pixels."""

    name: str
    points: Sequence[Point]
    color: Color
    joined: bool = False
    radius: float = 5.0


def draw_chart(
    title: str,
    subtitle: str,
    axes: tuple[str, str],
    series: Sequence[Series],
    legend: Sequence[tuple[str, Color, bool]] = (),
) -> np.ndarray:
    """A chart as a picture, uint8 [720, 1200, 3] bgr.

    Args:
        title: the first line above the chart.
        subtitle: the second, smaller one.
        axes: what stands on the horizontal and on the vertical axis, with units.
        series: what to draw, the last on top; points that are not finite are left out.
        legend: further markers to explain, beside the names of the series: text, colour, whether filled.
    """
    shown = [_finite(one) for one in series]
    points = [point for one in shown for point in one.points]
    canvas = _Canvas(_axis_range(list(_xs_to_show(points))), _axis_range([point.y for point in points]))
    canvas.text(title, (_LEFT, 38), INK, 0.72)
    canvas.text(subtitle, (_LEFT, 66), MUTED, 0.46)
    canvas.axes(*axes)
    for one in shown:
        canvas.tails(one)
    for one in shown:
        canvas.series(one)
    for one in shown:
        canvas.labels(one)
    left = canvas.legend_lines([one for one in shown if one.joined])
    canvas.legend_markers(
        [(one.name, one.color, True) for one in shown if not one.joined and one.points] + list(legend), left
    )
    return canvas.picture()


class _Canvas:
    """The picture while it is drawn; positions are pixels of the finished picture."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self._image = np.full((HEIGHT * _SCALE, WIDTH * _SCALE, 3), 255, np.uint8)
        self._x_range, self._y_range = x_range, y_range

    def picture(self) -> np.ndarray:
        return cv2.resize(self._image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)

    def text(
        self, text: str, origin: tuple[float, float], color: Color, scale: float = 0.5, align: float = 0.0
    ) -> float:
        """Writes `text` with its baseline at `origin`, of which `align` of its width lies left; returns its width."""
        plain = text.encode("ascii", "replace").decode()
        (width, _), _ = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, scale * _SCALE, _SCALE)
        place = (round(origin[0] * _SCALE - align * width), round(origin[1] * _SCALE))
        cv2.putText(
            self._image, plain, place, cv2.FONT_HERSHEY_SIMPLEX, scale * _SCALE, color, _SCALE, cv2.LINE_AA
        )
        return width / _SCALE

    def axes(self, x_label: str, y_label: str) -> None:
        for value, text in _ticks(self._x_range, 10):
            x = self._x(value)
            self._line((x, _TOP), (x, _BOTTOM), GRID)
            self.text(text, (x, _BOTTOM + 22), MUTED, 0.46, align=0.5)
        for value, text in _ticks(self._y_range, 10):
            y = self._y(value)
            self._line((_LEFT, y), (_RIGHT, y), GRID)
            self.text(text, (_LEFT - 10, y + 5), MUTED, 0.46, align=1.0)
        self._line((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM), MUTED)
        self._line((_LEFT, _TOP), (_LEFT, _BOTTOM), MUTED)
        self.text(x_label, (_RIGHT, _BOTTOM + 48), INK, 0.5, align=1.0)
        self.text(y_label, (12, _TOP - 14), INK, 0.5)

    def tails(self, series: Series) -> None:
        pale = tuple((channel + 2 * 255) // 3 for channel in series.color)
        for point in series.points:
            if point.tail_x is not None:
                y, tail = self._y(point.y), self._x(point.tail_x)
                self._line((self._x(point.x), y), (min(tail, _RIGHT), y), pale)
                if tail <= _RIGHT:
                    self._line((tail, y - 4), (tail, y + 4), pale)

    def series(self, series: Series) -> None:
        if series.joined:
            for a, b in zip(series.points, series.points[1:], strict=False):
                self._line((self._x(a.x), self._y(a.y)), (self._x(b.x), self._y(b.y)), series.color, 2)
        for point in series.points:
            self._marker((self._x(point.x), self._y(point.y)), series.color, point.filled, series.radius)

    def labels(self, series: Series) -> None:
        for point in series.points:
            if point.label:
                # Above and left of a line that rises there is room; at the left edge there is only below it.
                x, y = self._x(point.x), self._y(point.y)
                if x - _LEFT < 120:
                    self.text(point.label, (x + 4, y + 22), series.color, 0.46)
                else:
                    self.text(point.label, (x - 8, y - 12), series.color, 0.46, align=1.0)

    def legend_lines(self, joined: Sequence[Series]) -> float:
        """Explains the lines, left to right; returns where the next entry goes."""
        left = float(_LEFT)
        for one in joined:
            self._line((left, 91), (left + 34, 91), one.color, 2)
            self._marker((left + 17, 91), one.color, True)
            left += 42 + self.text(one.name, (left + 42, 96), INK, 0.46) + 28
        return left

    def legend_markers(self, entries: Sequence[tuple[str, Color, bool]], left: float) -> None:
        for name, color, filled in entries:
            self._marker((left + 6, 91), color, filled)
            left += 20 + self.text(name, (left + 20, 96), INK, 0.46) + 28

    def _x(self, value: float) -> float:
        low, high = self._x_range
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)

    def _y(self, value: float) -> float:
        low, high = self._y_range
        return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low)

    def _line(self, start: tuple[float, float], end: tuple[float, float], color: Sequence[int], width: int = 1) -> None:
        cv2.line(self._image, _scaled(start), _scaled(end), color, width * _SCALE, cv2.LINE_AA)

    def _marker(self, center: tuple[float, float], color: Color, filled: bool, radius: float = 5.0) -> None:
        pixels = round(radius * _SCALE)
        cv2.circle(self._image, _scaled(center), pixels, color if filled else (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(self._image, _scaled(center), pixels, color, 3 * _SCALE // 2, cv2.LINE_AA)


def _finite(series: Series) -> Series:
    points = [
        point for point in series.points if all(math.isfinite(value) for value in (point.x, point.y, point.tail_x or 0))
    ]
    return replace(series, points=points)


def _xs_to_show(points: Sequence[Point]) -> Iterator[float]:
    """All points, and tails as far as the points themselves do not shrink to less than half of the width."""
    xs = [point.x for point in points]
    yield from xs
    if xs:
        furthest = 2 * max(xs) - min(xs) if max(xs) > min(xs) else math.inf
        yield from (min(point.tail_x, furthest) for point in points if point.tail_x is not None)


def _axis_range(values: Sequence[float]) -> tuple[float, float]:
    """A range that leaves a margin around `values`; something to draw on where there are none."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _ticks(bounds: tuple[float, float], most: int) -> list[tuple[float, str]]:
    """At most `most` round numbers within the bounds, and how they are written."""
    low, high = bounds
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(value, f"{value:.{decimals}f}") for value in values]


def _scaled(place: tuple[float, float]) -> tuple[int, int]:
    return round(place[0] * _SCALE), round(place[1] * _SCALE)

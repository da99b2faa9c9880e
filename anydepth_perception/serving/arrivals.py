"""When the frames of a camera come: its period, the usual age of its stamps, and when the next ones are expected."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

_WINDOW = 16
"""Periods and ages that the medians are taken of."""

_FEWEST_PERIODS = 3
"""Periods that must have been seen before anything is expected of a camera."""

_SILENT_PERIODS = 3.0
"""Periods without a frame after which nothing more is expected of a camera."""


class Arrivals:
    """What has been seen of one camera's frames. Medians, so that lost frames and hiccups do not move them.

    `period_s` is the median time between arrivals, None until `_FEWEST_PERIODS` were seen. `usual_age_s` is the median
    age of the stamps at arrival, 0 before the first.
    """

    def __init__(self) -> None:
        self.period_s: float | None = None
        self.usual_age_s = 0.0
        self._periods_s: deque[float] = deque(maxlen=_WINDOW)
        self._ages_s: deque[float] = deque(maxlen=_WINDOW)
        self._last_s: float | None = None

    def add(self, arrival_s: float, age_s: float) -> None:
        """Takes in a frame.

        Args:
            arrival_s: on the steady clock, seconds, not before the last one.
            age_s: from its stamp to its arrival, seconds.
        """
        if self._last_s is not None:
            self._periods_s.append(arrival_s - self._last_s)
        self._last_s = arrival_s
        self._ages_s.append(age_s)
        self.usual_age_s = _median(self._ages_s)
        if len(self._periods_s) >= _FEWEST_PERIODS:
            period_s = _median(self._periods_s)
            self.period_s = period_s if period_s > 0.0 else None

    def expected(self, now_s: float, count: int) -> list[float]:
        """Arrival times of the next `count` frames, on the steady clock, seconds, in ascending order.

        One that is late by up to half a period is still expected, and its time has passed; later it counts as lost, and
        the one after it is the next. Empty where the period is unknown, or the camera has fallen silent.
        """
        if self._last_s is None or self.period_s is None:
            return []
        elapsed = (now_s - self._last_s) / self.period_s
        if elapsed > _SILENT_PERIODS:
            return []
        first = max(1, math.ceil(elapsed - 0.5))
        return [self._last_s + number * self.period_s for number in range(first, first + count)]


def _median(values: Iterable[float]) -> float:
    """The upper one of two in the middle."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]

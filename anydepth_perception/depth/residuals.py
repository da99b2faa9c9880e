"""What a decision point has learnt: how much longer than profiled the rest of a frame takes, and how sure that is."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from anydepth_perception.depth.completions import BIN, MAX_BIN

LOWEST, HIGHEST = -1.0, 3.0
"""Residuals beyond these count as these: e^3 is twenty times the time that was expected."""

_LOW, _HIGH = round(LOWEST / BIN), round(HIGHEST / BIN)
Features = tuple[float, float, float]
"""Deviations of ln(slowdown) from its slow mean: of the last frames, of this frame so far, of its last group."""

_INITIAL_WEIGHTS: Features = (0.5, 0.2, 0.1)
_INITIAL_RESIDUALS = tuple(-0.15 + 0.4 * index / 11 for index in range(12))
_PRIOR = 1e-2
_CLIPPED = 0.5


class ResidualWindow:
    """The last residuals ln(actual / expected) of what ran after a decision point, as counts by bins.

    `_counts[MAX_BIN + _HIGH - k]` frames had a residual of bin k or less. Above and below lie as many as a completion
    may have bins: there, all had one, or none.
    """

    __slots__ = ("_bins", "_cautious", "_counts", "_length", "size")

    def __init__(self, length: int) -> None:
        """Keeps `length` residuals, at least 1; a dozen cautious ones stand for those of a machine not yet seen.

        They leave one by one with every second one that is seen.
        """
        self._length = length
        self._cautious = 0
        self.size = 0
        """Number of residuals."""
        self._bins: deque[int] = deque()
        self._counts = np.zeros(_HIGH - _LOW + 1 + 2 * MAX_BIN)
        for residual in _INITIAL_RESIDUALS:
            self.add(residual)
        self._cautious = 2 * len(_INITIAL_RESIDUALS)

    def add(self, residual: float) -> None:
        """Takes a residual in, and the oldest one out of a full window."""
        found = math.ceil(min(HIGHEST, max(LOWEST, residual)) / BIN - 0.5)
        end = MAX_BIN + _HIGH - found + 1  # of those that count it
        self._bins.append(end)
        if self.size < self._length:
            self._cautious = max(0, self._cautious - 1)
            if not self._cautious % 2:
                self._counts[:end] += 1.0
                self.size += 1
                return
        oldest = self._bins.popleft()
        if oldest < end:
            self._counts[oldest:end] += 1.0
        elif oldest > end:
            self._counts[end:oldest] -= 1.0

    def in_time(self, expected: int) -> np.ndarray:
        """How many frames would have had time for a completion of bin 0, 1, ... to `MAX_BIN` at least.

        Args:
            expected: the bin of the completions that would just be in time if all went as expected.
        """
        first = MAX_BIN + _HIGH - expected
        return self._counts[max(0, min(first, _HIGH - _LOW + MAX_BIN)) :]

    def quantile(self, level: float) -> float:
        """The residual that a share `level` of frames does not exceed."""
        ascending = self._counts[MAX_BIN : MAX_BIN + _HIGH - _LOW + 1][::-1]
        return float(np.searchsorted(ascending, level * self.size - 1e-9) + _LOW) * BIN


class Predictor:
    """Linear prediction of the rest's ln(slowdown) from `Features`, by least squares that forget.

    On a machine whose load stays the same within a frame the frame so far tells most; on one that others interrupt,
    the frames before do. The weights are learnt where it is used.
    """

    __slots__ = ("_forgetting", "_moments", "_products", "weights")

    def __init__(self, forgetting: float) -> None:
        """`forgetting` in (0, 1) is the weight of the sums of one frame ago."""
        self._forgetting = forgetting
        self._moments = [0.0] * 6
        self._products = [0.0] * 3
        self.weights = _INITIAL_WEIGHTS

    def __call__(self, x: Features) -> float:
        """Deviation of ln(slowdown) from its slow mean, in [-1, 1]."""
        a, b, c = self.weights
        return min(1.0, max(-1.0, a * x[0] + b * x[1] + c * x[2]))

    def observe(self, x: Features, predicted: float, residual: float) -> None:
        """Learns that `residual` was missing from `predicted`; outliers count as half an e-fold."""
        if not -_CLIPPED <= residual <= _CLIPPED:
            residual = _CLIPPED if residual > 0.0 else -_CLIPPED
        target = predicted + residual
        a, b, c = x
        f = self._forgetting
        aa, ab, ac, bb, bc, cc = self._moments
        self._moments = [f * aa + a * a, f * ab + a * b, f * ac + a * c, f * bb + b * b, f * bc + b * c, f * cc + c * c]
        p, q, r = self._products
        self._products = [f * p + a * target, f * q + b * target, f * r + c * target]

    def solve(self) -> None:
        """Makes the weights those of all that was observed."""
        aa, ab, ac, bb, bc, cc = self._moments
        aa, bb, cc = aa + _PRIOR, bb + _PRIOR, cc + _PRIOR
        p, q, r = (value + _PRIOR * weight for value, weight in zip(self._products, _INITIAL_WEIGHTS, strict=True))
        # Cramer's rule; the ridge keeps the determinant above 0.
        ca, cb, cd = bb * cc - bc * bc, ac * bc - ab * cc, ab * bc - ac * bb
        determinant = aa * ca + ab * cb + ac * cd
        da, db, dc = aa * cc - ac * ac, ab * ac - aa * bc, aa * bb - ab * ab
        self.weights = (
            (ca * p + cb * q + cd * r) / determinant,
            (cb * p + da * q + db * r) / determinant,
            (cd * p + db * q + dc * r) / determinant,
        )

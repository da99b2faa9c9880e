"""Flat pictures: posters and banners with silhouettes that look like labelled solids and are not."""

from __future__ import annotations

import numpy as np

from anydepth_perception.aisle.solids import palette


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


BOARD = [_rectangle(-0.5, -0.5, 0.5, 0.5), _rectangle(-0.45, -0.46, 0.45, 0.46)]
SILHOUETTES = [
    [
        _rectangle(-0.06, 0.27, 0.06, 0.42),
        _rectangle(-0.13, -0.05, 0.13, 0.25),
        _rectangle(-0.12, -0.42, -0.02, -0.05),
        _rectangle(0.02, -0.42, 0.12, -0.05),
    ],
    [[(-0.2, -0.3), (0.2, -0.3), (0.03, 0.35), (-0.03, 0.35)], _rectangle(-0.28, -0.36, 0.28, -0.3)],
    [_rectangle(-0.2, -0.35, 0.2, 0.35), _rectangle(-0.22, 0.08, 0.22, 0.13), _rectangle(-0.22, -0.14, 0.22, -0.09)],
    [_rectangle(-0.3, -0.3, 0.3, 0.3), [(-0.3, -0.3), (-0.2, -0.3), (0.3, 0.3), (0.2, 0.3)]],
    [_rectangle(-0.4, 0.2, 0.4, 0.3), _rectangle(-0.4, 0, 0.3, 0.1), _rectangle(-0.4, -0.3, 0.1, -0.1)],
]
"""Person, cone, barrel, crate, and lines of writing, as quads within a board from -0.5 to 0.5."""


def poster(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random poster: quads [F,4,2] within -0.5..0.5 (y up) in drawing order, colours [F,3] in [0,1]."""
    figure = SILHOUETTES[rng.integers(len(SILHOUETTES))]
    colours = palette(rng)
    roles = [3, 0] + [1 + i % 2 for i in range(len(figure))]
    return np.array(BOARD + figure), colours[roles]

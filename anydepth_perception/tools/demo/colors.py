"""Colours of the demo's pictures, blue, green and red in [0, 255], as OpenCV has them."""

from __future__ import annotations

Color = tuple[int, int, int]

INK: Color = (60, 50, 45)
MUTED: Color = (150, 140, 135)
GRID: Color = (232, 228, 225)
BLUE: Color = (150, 110, 30)
RED: Color = (60, 60, 220)

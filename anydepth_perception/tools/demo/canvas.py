"""What the demo's pictures share: colours, blue, green and red in [0, 255] as OpenCV has them, and text."""

from __future__ import annotations

import cv2
import numpy as np

Color = tuple[int, int, int]

INK: Color = (60, 50, 45)
MUTED: Color = (150, 140, 135)
GRID: Color = (232, 228, 225)
GOOD: Color = (150, 110, 30)
FULL = GOOD
MISSED: Color = (60, 60, 220)
LOAD: Color = (215, 235, 250)
ESSENTIAL: Color = (225, 205, 180)
PAPER: Color = (255, 255, 255)

POLICY_TITLES = {"auto": "auto", "full": "always full", "base": "always base"}


def write(canvas: np.ndarray, text: str, origin: tuple[int, int], color: Color, scale: float = 0.5) -> None:
    """Writes `text` with its baseline from `origin`, in pixels."""
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)

"""Changes of colour that leave the boxes alone."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def distort(image: np.ndarray, probability: float, random: np.random.Generator) -> None:
    """SSD's photometric distortion of `image`, uint8 [H, W, 3] RGB, in place; each change has the same probability.

    Brightness within 1/8, contrast and saturation within half, hue within 1/20 of its circle, and an exchange of the
    channels; contrast comes before or after saturation and hue.
    """
    if image.size == 0:
        return
    brightness, contrast, saturation, hue, exchange = random.random(5) < probability
    contrast_first = random.random() < 0.5
    brighter, stronger, richer = random.uniform((0.875, 0.5, 0.5), (1.125, 1.5, 1.5))
    turn = random.uniform(-0.05, 0.05)
    order = random.permutation(3)
    if brightness:
        _apply(image, lambda level: level * brighter)
    if contrast and contrast_first:
        _change_contrast(image, stronger)
    if saturation:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        cv2.addWeighted(image, richer, grey, 1 - richer, 0, dst=image)
    if hue:
        shift_hsv(image, turn, 1.0, 1.0)
    if contrast and not contrast_first:
        _change_contrast(image, stronger)
    if exchange:
        image[:] = image[..., order]


def shift_hsv(image: np.ndarray, turn: float, saturation: float, value: float) -> None:
    """Turns the hue by a share of its circle and multiplies saturation and value, in place; uint8 [H, W, 3] RGB."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256, dtype=np.float64)
    tables = np.stack(
        [
            np.round(levels + 180 * turn) % 180,
            np.clip(np.round(levels * saturation), 0, 255),
            np.clip(np.round(levels * value), 0, 255),
        ],
        axis=-1,
    ).astype(np.uint8)
    cv2.LUT(hsv, tables[None], dst=hsv)
    image[:] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _change_contrast(image: np.ndarray, factor: float) -> None:
    mean = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
    _apply(image, lambda level: level * factor + mean * (1 - factor))


def _apply(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> None:
    table = np.clip(np.round(change(np.arange(256, dtype=np.float64))), 0, 255).astype(np.uint8)
    image[:] = cv2.LUT(image, table)

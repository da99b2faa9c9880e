"""Score thresholds of single classes, as the parameter `class_score_thresholds` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class ThresholdError(ValueError):
    """A threshold that is malformed, out of range or of an unknown class; the text says what is accepted."""


def parse_thresholds(texts: Iterable[str], class_names: Sequence[str] | None = None) -> dict[str, float]:
    """Thresholds by class name, out of texts like `person:0.5`; `class_names` None accepts any class.

    Raises:
        ThresholdError: for the first text that is refused.
    """
    thresholds: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition(":")
        name = name.strip()
        if not name:
            raise ThresholdError(f"{text!r} has no class name, expected CLASS:SCORE")
        if class_names is not None and name not in class_names:
            raise ThresholdError(f"class {name!r} is unknown, the bundle has {', '.join(class_names)}")
        if name in thresholds:
            raise ThresholdError(f"class {name!r} is there twice")
        try:
            thresholds[name] = float(number)
        except ValueError:
            raise ThresholdError(f"{number.strip()!r} in {text!r} is not a number") from None
        if not 0.0 <= thresholds[name] <= 1.0:
            raise ThresholdError(f"{number.strip()} in {text!r} is not in [0, 1]")
    return thresholds


def thresholds_by_class(texts: Iterable[str], class_names: Sequence[str], default: float) -> np.ndarray:
    """Threshold of each class, float64 [C]; `default` where `texts` name none.

    Raises:
        ThresholdError: for the first text that is refused.
    """
    thresholds = parse_thresholds(texts, class_names)
    return np.array([thresholds.get(name, default) for name in class_names])

"""Calibration: which values the tensors of a detector take on images, over depth configurations, as ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig

METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
"""Share of the values, in percent, that `percentile` keeps; half of the others are cut off at either end."""

_BINS = 2048
_LEVELS = 256

Range = tuple[float, float]
Observe = Callable[[str, np.ndarray], None]


class CalibrationError(ValueError):
    """Calibration images that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Histogram:
    """How often values of a tensor fell into each of equal bins between `low` and `high`."""

    low: float
    high: float
    counts: np.ndarray


def observe_histograms(
    bundle: Bundle, runs: Sequence[tuple[np.ndarray, Sequence[DepthConfig]]], tensors: Collection[str]
) -> dict[str, Histogram]:
    """Histograms of `tensors` while `bundle` runs.

    Args:
        bundle: a float32 bundle.
        runs: images uint8 [1, height, width, 3], each with the configurations it is run at.
        tensors: names of float32 tensors inside or between segments; those that no configuration has are left out.
    """
    engines = {config: _Engine(bundle, config, tensors) for _, configs in runs for config in configs}
    limits: dict[str, Range] = {}

    def widen(name: str, values: np.ndarray) -> None:
        low, high = limits.get(name, (0.0, 0.0))  # zero lies in every range: padding and ReLU need it exactly
        limits[name] = (min(low, float(values.min())), max(high, float(values.max())))

    counts: dict[str, np.ndarray] = {}

    def count(name: str, values: np.ndarray) -> None:
        low, high = limits[name]
        scale = _BINS / (high - low) if high > low else 0.0
        bins = np.minimum(((values.ravel() - low) * scale).astype(np.int32), _BINS - 1)
        found = np.bincount(bins, minlength=_BINS)
        counts[name] = counts[name] + found if name in counts else found

    for observe in (widen, count):
        for image, configs in runs:
            for config in configs:
                engines[config].run(image, observe)
    return {name: Histogram(*limits[name], counts[name]) for name in sorted(limits)}


def find_ranges(histograms: Mapping[str, Histogram], method: str, *, symmetric: bool) -> dict[str, Range]:
    """The range of each tensor that 8 bits shall cover; what lies outside is clipped.

    Args:
        histograms: of the tensors.
        method: `minmax` covers all, `percentile` all but the outermost 0.01 %, `mse` loses least in the mean square.
        symmetric: whether low must be -high.

    Raises:
        ValueError: the method is not one of `METHODS`.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    return {name: _find_range(histogram, method, symmetric) for name, histogram in histograms.items()}


def _find_range(histogram: Histogram, method: str, symmetric: bool) -> Range:
    low, high = histogram.low, histogram.high
    if method == "percentile":
        edges = np.linspace(low, high, _BINS + 1)
        share = np.cumsum(histogram.counts) / histogram.counts.sum()
        tail = (1 - PERCENTILE / 100) / 2
        low = min(0.0, float(edges[np.searchsorted(share, tail)]))
        high = max(0.0, float(edges[np.searchsorted(share, 1 - tail) + 1]))
    if method == "mse":
        shares = np.linspace(0.2, 1.0, 81)
        # The lower end of a SiLU is short and dense; only the upper tail is worth cutting.
        cut = [(low * share, high * share) for share in shares] + [(low, high * share) for share in shares]
        candidates = [_widened(lowest, highest, symmetric) for lowest, highest in cut]
        return min(candidates, key=lambda pair: _squared_error(histogram, *pair))
    return _widened(low, high, symmetric)


def _widened(low: float, high: float, symmetric: bool) -> Range:
    if symmetric:
        high = max(-low, high)
        low = -high
    return (float(low), float(high))


def _squared_error(histogram: Histogram, low: float, high: float) -> float:
    width = (histogram.high - histogram.low) / _BINS
    centres = histogram.low + width * (np.arange(_BINS) + 0.5)
    step = (high - low) / (_LEVELS - 1)
    clipped = np.clip(centres, low, high)
    rounding = step * step / 12 * ((centres >= low) & (centres <= high))
    return float((histogram.counts * ((centres - clipped) ** 2 + rounding)).sum())


class _Engine:
    """A configuration whose inner tensors can be read."""

    def __init__(self, bundle: Bundle, config: DepthConfig, tensors: Collection[str]) -> None:
        model = bundle.compose(config)
        present = {name for node in model.graph.node for name in node.output}
        outputs = {output.name for output in model.graph.output}
        self.names = sorted(present & set(tensors))
        model.graph.output.extend(_outputs(name for name in self.names if name not in outputs))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Fused operators would not write what lies inside them.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.input = bundle.input_spec().name

    def run(self, image: np.ndarray, observe: Observe) -> None:
        for name, values in zip(self.names, self.session.run(self.names, {self.input: image}), strict=True):
            observe(name, values)


def _outputs(names: Iterable[str]) -> Iterable[onnx.ValueInfoProto]:
    return (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)

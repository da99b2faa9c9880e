"""Calibration: which values the tensors of a detector take on images, over depth configurations, as ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from anydepth_perception.bundle.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig

METHODS = ("minmax", "mse")

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


def observe_ranges(
    bundle: Bundle,
    runs: Sequence[tuple[np.ndarray, Sequence[DepthConfig]]],
    tensors: Collection[str],
    method: str,
    *,
    symmetric: bool,
) -> dict[str, Range]:
    """The range of each tensor that 8 bits shall cover, from what it holds while `bundle` runs.

    Args:
        bundle: a float32 bundle.
        runs: images uint8 [1, height, width, 3], each with the configurations it is run at.
        tensors: names of float32 tensors inside or between segments; those that no configuration has are left out.
        method: `minmax` covers all values, `mse` cuts off what makes the mean square error least.
        symmetric: whether low must be -high.

    Raises:
        ValueError: the method is not one of `METHODS`.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
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

    def run_all(observe: Observe) -> None:
        for image, configs in runs:
            for config in configs:
                engines[config].run(image, observe)

    run_all(widen)
    if method == "minmax":
        return {name: _widened(low, high, symmetric) for name, (low, high) in limits.items()}
    run_all(count)
    return {
        name: least_error_range(Histogram(*limits[name], counts[name]), symmetric=symmetric) for name in limits
    }


def least_error_range(histogram: Histogram, *, symmetric: bool) -> Range:
    """The range with the least mean square error of rounding to 8 bits and of clipping."""
    low, high = histogram.low, histogram.high
    shares = np.linspace(0.2, 1.0, 81)
    # The lower end of a SiLU is short and dense; only the upper tail is worth cutting.
    cut = [(low * share, high * share) for share in shares] + [(low, high * share) for share in shares]
    candidates = [_widened(lowest, highest, symmetric) for lowest, highest in cut]
    return min(candidates, key=lambda pair: _squared_error(histogram, *pair))


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

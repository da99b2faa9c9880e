"""Reference outputs by plain ONNX Runtime: without any optimisation of the graph, on one thread."""

from __future__ import annotations

import cv2
import numpy as np
import onnx

from anydepth_perception.bundle.bundle import Bundle
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.reference import Reference, ReferenceRows, choose_rows
from anydepth_perception.depth.grouping import Grouping
from anydepth_perception.depth.space import DepthConfig

_CELL_PX = 8


class PlainRunError(BundleError):
    """ONNX Runtime is not there, or cannot run a graph; the message says why."""


def smooth_noise(bundle: Bundle) -> np.ndarray:
    """An image uint8 [1, H, W, 3] for bundles without one: the same each time, and not flat anywhere.

    White noise would do for float32, but it makes INT8 round more than images do.
    """
    _, height, width, channels = bundle.input_spec().shape
    cells = (-(-height // _CELL_PX), -(-width // _CELL_PX), channels)
    noise = np.random.default_rng(0).integers(0, 256, cells, np.uint8)
    return np.ascontiguousarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)[None])


def run_plainly(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name of a graph with one input, by ONNX Runtime on one thread with no optimisation.

    Raises:
        PlainRunError: ONNX Runtime is not installed, or cannot run the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise PlainRunError(f"onnxruntime cannot be imported: {error}") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, {session.get_inputs()[0].name: image}), strict=True))
    except Exception as error:  # ONNX Runtime's exceptions have no common base beside Exception
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PlainRunError(f"ONNX Runtime cannot run {model.graph.name!r} without optimisation: {reason}") from error


def reference_configs(bundle: Bundle) -> tuple[DepthConfig, ...]:
    """Configurations to store references of: the default ladder, and what staged execution needs beside it.

    Full and base are among them. Together they run every engine of staged execution with its default decision points.
    """
    grouping = Grouping(bundle.space, bundle.space.default_points)
    ladder = bundle.default_configs()
    return tuple(dict.fromkeys([*ladder, *grouping.covering(list(grouping.all_ways()), ladder)]))


def reference_by_onnxruntime(bundle: Bundle, image: np.ndarray) -> Reference:
    """References for an image uint8 [1, H, W, 3] at network size, computed by ONNX Runtime without optimisation.

    For bundles that no torch network stands behind, as quantised ones, with `smooth_noise` or an image of their own;
    `rewrite_bundle` stores it.

    Raises:
        PlainRunError: see `run_plainly`.
        BundleError: a segment cannot be read.
    """
    names = bundle.manifest.outputs
    rows: dict[DepthConfig, ReferenceRows] = {}
    precision = "float32"
    for config in reference_configs(bundle):
        model = bundle.compose(config)
        outputs = run_plainly(model, image)
        rows[config] = choose_rows(outputs[names.boxes], outputs[names.logits])
        precision = precision_of(model)
    return Reference(image, rows, precision)


def precision_of(model: onnx.ModelProto) -> str:
    """`int8` for a graph that holds Q/DQ pairs, `float16` for one with such weights, else `float32`."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
        return "float16"
    return "float32"

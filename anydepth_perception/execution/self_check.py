"""The numerical self-check: what fresh engines put out is held against reference outputs before they are used."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
import onnx

from anydepth_perception.backends.base import Backend, BackendError
from anydepth_perception.bundle import Bundle, Reference, ReferenceRows, choose_rows
from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.execution.plan import covering_configs, default_decision_points, make_plan

TOLERANCES = {"float32": 1e-3, "float16": 0.3, "int8": 0.08}
"""`difference` allowed, by the arithmetic that is coarser."""

_PRECISIONS = tuple(TOLERANCES)  # the coarser, the later
_UNORDERED_SHARE = 0.9
_CELL_PX = 8

_LOG = logging.getLogger(__name__)


class SelfCheckError(BackendError):
    """Engines that compute something else than the bundle's segments do."""


@dataclass(frozen=True)
class Checked:
    """A configuration whose outputs were compared, and how far they are from the reference."""

    config: DepthConfig
    difference: float
    tolerance: float


class SelfCheck:
    """Compares raw outputs for one image with the bundle's references, or where it has none, with plain ONNX Runtime.

    Plain means: without any optimisation of the graph, so that ONNX Runtime's own engines are checked as well.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Reads the references.

        Raises:
            BundleError: they are damaged.
        """
        self._bundle = bundle
        self._backend = backend
        self._reference = bundle.read_reference()

    @property
    def image(self) -> np.ndarray:
        """What the engines have to be run on, uint8 [1, H, W, 3]."""
        return smooth_noise(self._bundle) if self._reference is None else self._reference.image

    @property
    def configs(self) -> tuple[DepthConfig, ...]:
        """Configurations that the bundle has references for."""
        return () if self._reference is None else tuple(self._reference.rows)

    def check(self, config: DepthConfig, boxes: np.ndarray, logits: np.ndarray) -> Checked | None:
        """Compares what `config` put out for `image`; None where there is nothing to compare with.

        Raises:
            SelfCheckError: the difference is above the tolerance.
            BundleError: a segment cannot be read.
        """
        rows, precision = self._expected(config)
        if rows is None:
            return None
        ordered = self._bundle.manifest.outputs.ordered
        coarser = max(precision, self._backend.precision, key=_PRECISIONS.index)
        found = difference(rows, boxes, logits, ordered=ordered, precision=coarser)
        checked = Checked(config, found, TOLERANCES[coarser])
        if not checked.difference <= checked.tolerance:
            raise SelfCheckError(
                f"{self._bundle.path}: engines of {self._backend.name} {self._backend.version} "
                f"({coarser}) for {config} are wrong: their outputs differ from the reference by "
                f"{checked.difference:.3g}, at most {checked.tolerance:g} is allowed; they are not used"
            )
        return checked

    def _expected(self, config: DepthConfig) -> tuple[ReferenceRows | None, str]:
        """Rows to compare with, and the precision of their arithmetic."""
        if self._reference is not None and config in self._reference.rows:
            return self._reference.rows[config], self._reference.precision
        model = self._bundle.compose(config)
        try:
            outputs = run_plainly(model, self.image)
        except BackendError as error:
            _LOG.warning("engines for %s are not checked, the bundle has no references for it: %s", config, error)
            return None, "float32"
        names = self._bundle.manifest.outputs
        return choose_rows(outputs[names.boxes], outputs[names.logits]), precision_of(model)


def difference(
    rows: ReferenceRows, boxes: np.ndarray, logits: np.ndarray, *, ordered: bool, precision: str = "float32"
) -> float:
    """How far raw boxes [1, N, 4] in [0, 1] and logits [1, N, C] are from the reference; infinite if any is no number.

    For floating point it is the largest difference of any element; for `int8`, whose rounding moves some elements far,
    the root of the mean square. In order, each reference row is held against its own. A DETR's rows come in no defined
    order, and rounding may choose another query where scores are equal: there each reference row is held against the
    nearest one, and the worst tenth does not count.
    """
    found = np.concatenate([boxes[0], logits[0]], axis=1)
    expected = np.concatenate([rows.boxes, rows.logits], axis=1)
    if not np.isfinite(found).all():
        return float("inf")
    if ordered:
        deviations = np.abs(found[rows.indices] - expected)
    else:
        nearest = [int(np.abs(found - row).max(axis=1).argmin()) for row in expected]
        deviations = np.abs(found[nearest] - expected)
        best = deviations.max(axis=1).argsort()[: 1 + int(_UNORDERED_SHARE * (len(expected) - 1))]
        deviations = deviations[best]
    return float(np.sqrt(np.square(deviations).mean()) if precision == "int8" else deviations.max())


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
        BackendError: ONNX Runtime is not installed, or cannot run the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"onnxruntime cannot be imported: {error}") from error
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
        raise BackendError(f"ONNX Runtime cannot run {model.graph.name!r} without optimisation: {reason}") from error


def reference_configs(bundle: Bundle) -> tuple[DepthConfig, ...]:
    """Configurations to store references of: the default ladder, and what staged execution needs beside it.

    Full and base are among them. Together they run every engine of staged execution with its default decision points.
    """
    plan = make_plan(bundle.manifest, default_decision_points(bundle.manifest))
    ladder = bundle.default_configs()
    names = {variant.name for alternatives in plan.variants for variant in alternatives}
    return tuple(dict.fromkeys([*ladder, *covering_configs(plan, bundle, names, ladder)]))


def reference_by_onnxruntime(bundle: Bundle, image: np.ndarray) -> Reference:
    """References for an image uint8 [1, H, W, 3] at network size, computed by ONNX Runtime without optimisation.

    For bundles that no torch network stands behind, as quantised ones, with `smooth_noise` or an image of their own;
    `bundle.write_reference` stores it.

    Raises:
        BackendError: see `run_plainly`.
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

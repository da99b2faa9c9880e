"""The numerical self-check: what fresh engines put out is held against reference outputs before they are used."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from anydepth_perception.backends.base import Backend, BackendError
from anydepth_perception.bundle import Bundle, ReferenceRows, choose_rows
from anydepth_perception.bundle.plain_run import PlainRunError, precision_of, run_plainly, smooth_noise
from anydepth_perception.depth.space import DepthConfig

TOLERANCES = {"float32": 1e-3, "float16": 0.3, "int8": 0.08}
"""`difference` allowed, by the arithmetic that is coarser."""

_PRECISIONS = tuple(TOLERANCES)  # the coarser, the later
_UNORDERED_SHARE = 0.9

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
        except PlainRunError as error:
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

"""Inference backends behind one protocol, and the choice between them by name."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from anydepth_perception.backends.base import Backend, BackendError, Buffer, Engine, Placement, run_once

_LOG = logging.getLogger(__name__)

AUTO = "auto"
BACKENDS = (AUTO, "onnxruntime", "openvino", "tensorrt")
"""Accepted values of the `backend` parameter."""

PRECISIONS = ("auto", "float32", "float16")
"""Accepted values of the `precision` parameter."""

DEFAULT_WORKSPACE_MIB = 1024

__all__ = [
    "AUTO",
    "BACKENDS",
    "PRECISIONS",
    "Backend",
    "BackendError",
    "BackendMissingError",
    "Buffer",
    "Engine",
    "Placement",
    "create_backend",
    "preference",
    "run_once",
]


class BackendMissingError(BackendError):
    """A backend whose library is not installed."""


def preference(name: str) -> tuple[str, ...]:
    """The backends that `name` stands for, the one to try first in front; more than one only for `auto`."""
    return ("tensorrt", "onnxruntime") if name == AUTO else (name,)


def create_backend(
    name: str = AUTO,
    *,
    threads: int = 0,
    precision: str = "auto",
    workspace_mib: int = DEFAULT_WORKSPACE_MIB,
    timing_cache: Path | None = None,
) -> Backend:
    """The backend called `name`; `auto` takes the first of `preference` that is usable here.

    Args:
        name: one of `BACKENDS`.
        threads: CPU threads per engine, 0 for all physical cores; accelerators ignore it.
        precision: one of `PRECISIONS`. `auto` is float16 on TensorRT; the other backends have float32 alone.
        workspace_mib: most memory that TensorRT may use as workspace of an engine, MiB.
        timing_cache: file in which TensorRT keeps what it measures while it builds; None: it measures each time.

    Raises:
        BackendError: a name is unknown, or that backend is not usable on this machine or has no such precision.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is unknown, accepted are {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is unknown, accepted are {', '.join(PRECISIONS)}")
    if name == AUTO:
        return _first_usable(threads, precision, workspace_mib, timing_cache)
    if name == "tensorrt":
        return _tensorrt(precision, workspace_mib, timing_cache)
    if precision == "float16":
        raise BackendError(f"precision float16 is TensorRT's, backend {name} computes in float32; use float32 or auto")
    return _openvino(threads) if name == "openvino" else _onnxruntime(threads)


def _first_usable(threads: int, precision: str, workspace_mib: int, timing_cache: Path | None) -> Backend:
    try:
        return _tensorrt(precision, workspace_mib, timing_cache)
    except BackendMissingError:  # nothing to tell of: most machines have no TensorRT
        return _onnxruntime(threads)
    except BackendError as error:
        _LOG.warning("%s; onnxruntime takes its place", error)
        return _onnxruntime(threads)


def _onnxruntime(threads: int) -> Backend:
    try:
        from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
    except ImportError as error:
        raise BackendMissingError(f"backend onnxruntime is not usable, is onnxruntime installed? {error}") from error
    return OnnxRuntimeBackend(threads)


def _openvino(threads: int) -> Backend:
    from anydepth_perception.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(threads)


def _tensorrt(precision: str, workspace_mib: int, timing_cache: Path | None) -> Backend:
    if not any(importlib.util.find_spec(module) for module in ("tensorrt", "tensorrt_rtx")):
        raise BackendMissingError(
            "backend tensorrt needs TensorRT, which is not installed (JetPack brings it, and a PC takes the package "
            "tensorrt-rtx); install it, or use backend auto or onnxruntime"
        )
    from anydepth_perception.backends.tensorrt import TensorRtBackend, tensorrt_problem

    problem = tensorrt_problem()
    if problem is not None:
        raise BackendError(f"backend tensorrt is not usable: {problem}; mend that, or use backend onnxruntime")
    return TensorRtBackend("float16" if precision == "auto" else precision, workspace_mib << 20, timing_cache)

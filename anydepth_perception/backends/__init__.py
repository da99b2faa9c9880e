"""Inference backends behind one protocol, and the choice between them by name."""

from __future__ import annotations

from anydepth_perception.backends.base import Backend, BackendError, Buffer, Engine, Placement, run_once

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt")
"""Accepted values of the `backend` parameter."""

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendError",
    "Buffer",
    "Engine",
    "Placement",
    "create_backend",
    "run_once",
]


def create_backend(name: str = "auto", *, threads: int = 0) -> Backend:
    """The backend called `name`; `auto` takes the fastest one that is usable here.

    Args:
        name: one of `BACKENDS`.
        threads: CPU threads per engine, 0 for all physical cores; accelerators ignore it.

    Raises:
        BackendError: the name is unknown, or that backend is not available on this machine or in this release.
    """
    if name in ("auto", "onnxruntime"):
        try:
            from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
        except ImportError as error:
            raise BackendError(f"backend onnxruntime is not usable, is onnxruntime installed? {error}") from error
        return OnnxRuntimeBackend(threads)
    if name == "openvino":
        from anydepth_perception.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(threads)
    if name == "tensorrt":
        raise BackendError("backend tensorrt is not available in this release; use auto or onnxruntime")
    raise BackendError(f"backend {name!r} is unknown, accepted are {', '.join(BACKENDS)}")

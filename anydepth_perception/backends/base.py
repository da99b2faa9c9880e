"""The protocol of inference backends: compile a graph once, run it on images many times."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx


class BackendError(RuntimeError):
    """A backend that is not available here, or that cannot compile or run a graph; the message says why."""


class Engine(Protocol):
    """A compiled graph with its buffers. One thread at a time may run it."""

    def run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the graph on `image`, uint8 [1, H, W, 3] RGB, C-contiguous.

        Returns boxes float32 [1, N, 4] and logits float32 [1, N, C]. Both are the engine's own buffers: they
        hold until its next run. An image whose memory is the same as in the run before costs no rebinding.

        Raises:
            BackendError: the image has another shape or type, or the run failed.
        """
        ...


class Backend(Protocol):
    """A library that compiles ONNX graphs on this machine."""

    @property
    def name(self) -> str:
        """Name as in the `backend` parameter, for example `onnxruntime`."""
        ...

    @property
    def version(self) -> str:
        """Version of the library, a part of a profile's fingerprint."""
        ...

    @property
    def precision(self) -> str:
        """Arithmetic of the engines, `float32` or `float16` or `int8`."""
        ...

    @property
    def threads(self) -> int:
        """CPU threads that one engine uses; 0 where an accelerator does the work."""
        ...

    def compile(self, model: onnx.ModelProto) -> Engine:
        """Compiles a graph with one image as its input, and the boxes and logits as its outputs.

        Raises:
            BackendError: the graph is not accepted.
        """
        ...

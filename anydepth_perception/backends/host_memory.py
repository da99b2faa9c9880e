"""Buffers of backends that compute on the CPU: numpy arrays in one block of memory."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence

import numpy as np

from anydepth_perception.backends.base import BackendError, Buffer, Placement
from anydepth_perception.bundle.manifest import TensorSpec

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

_M_ARENA_MAX = -8  # of glibc's malloc.h


class HostBuffer:
    """A tensor in host memory, where the engines use it as well."""

    def __init__(self, spec: TensorSpec, host: np.ndarray) -> None:
        """`host` is C-contiguous and as `spec` says."""
        self.spec = spec
        self.host = host

    def upload(self) -> None:
        """There is nothing to copy."""

    def download(self) -> None:
        """There is nothing to copy."""


def allocate_on_host(placements: Sequence[Placement]) -> dict[str, Buffer]:
    """See `Backend.allocate`."""
    total = max((placement.end for placement in placements), default=0)
    try:
        memory = np.zeros(total + ALIGNMENT, np.uint8)
    except MemoryError as error:
        raise BackendError(f"no memory for {total} bytes of buffers") from error
    start = -memory.ctypes.data % ALIGNMENT
    buffers: dict[str, Buffer] = {}
    for placement in placements:
        spec = placement.spec
        part = memory[start + placement.offset : start + placement.end]
        buffers[spec.name] = HostBuffer(spec, part.view(spec.dtype).reshape(spec.shape))
    return buffers


def return_free_memory() -> None:
    """Gives back to the system what glibc keeps of freed memory: after compiling, some times the weights of a graph."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def use_few_arenas() -> None:
    """Has glibc serve all threads of this process from two arenas, of those that are not in use yet.

    Each new thread else takes an arena of its own, up to eight a core, in which freed engines leave holes: a node
    that is configured and cleaned up again and again grew by some MiB each time.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)

"""A stand-in for NVIDIA's driver library: host memory plays the device, and queued work waits to be waited for."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

OUT_OF_MEMORY, NO_DEVICE, INVALID_CONTEXT, LAUNCH_FAILED, CAPTURE_UNSUPPORTED = 2, 100, 201, 719, 900
_NAMES = {
    1: (b"CUDA_ERROR_INVALID_VALUE", b"invalid argument"),
    OUT_OF_MEMORY: (b"CUDA_ERROR_OUT_OF_MEMORY", b"out of memory"),
    NO_DEVICE: (b"CUDA_ERROR_NO_DEVICE", b"no CUDA-capable device is detected"),
    INVALID_CONTEXT: (b"CUDA_ERROR_INVALID_CONTEXT", b"invalid device context"),
    LAUNCH_FAILED: (b"CUDA_ERROR_LAUNCH_FAILED", b"unspecified launch failure"),
    CAPTURE_UNSUPPORTED: (b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", b"operation not permitted while capturing"),
}

Work = Callable[[], None]


class SimulatedCuda:
    """Looks like `ctypes.CDLL("libcuda.so.1")` to `Cuda`.

    Work is done when a stream is waited for, not when it is queued, so that a missing wait shows. A call in a thread
    without a context fails, as does waiting while capturing. `failing` has results of calls that shall fail; `calls`
    are the names of all calls, of which `observe` is told.
    """

    def __init__(self, capability: tuple[int, int] = (8, 7)) -> None:
        self.capability = capability
        self.failing: dict[str, int] = {}
        self.calls: list[str] = []
        self.observe: Callable[[str], object] = lambda name: None
        self.memory: dict[int, Any] = {}
        self.events: dict[int, float] = {}
        self.queue: list[Work] = []
        self.capturing: list[Work] | None = None
        self.graphs: dict[int, list[Work]] = {}
        self.clock_ms = 0.0
        self._current = threading.local()
        self._next_handle = 1000
        self._functions: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        if name not in self._functions:
            implementation = getattr(self, f"_{name}")

            def call(*arguments: Any) -> int:
                self.calls.append(name)
                self.observe(name)
                if name in self.failing:
                    return self.failing[name]
                if name in _NEED_CONTEXT and not getattr(self._current, "context", None):
                    return INVALID_CONTEXT
                return implementation(*arguments) or 0

            self._functions[name] = call
        return self._functions[name]

    def enqueue(self, work: Work) -> None:
        """What a kernel launch does."""
        (self.queue if self.capturing is None else self.capturing).append(work)

    def _handle(self, target: Any) -> int:
        self._next_handle += 1
        target._obj.value = self._next_handle
        return self._next_handle

    def _cuInit(self, flags: int) -> None: ...

    def _cuGetErrorName(self, result: int, text: Any) -> int:
        return self._text(result, text, 0)

    def _cuGetErrorString(self, result: int, text: Any) -> int:
        return self._text(result, text, 1)

    def _text(self, result: int, text: Any, part: int) -> int:
        if result not in _NAMES:
            return 1
        text._obj.value = _NAMES[result][part]
        return 0

    def _cuDriverGetVersion(self, version: Any) -> None:
        version._obj.value = 12060

    def _cuDeviceGet(self, device: Any, ordinal: int) -> None:
        device._obj.value = ordinal

    def _cuDeviceGetName(self, name: Any, size: int, device: int) -> None:
        name.value = b"Simulated"

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:
        value._obj.value = self.capability[{75: 0, 76: 1}[attribute]]

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:
        self._handle(context)

    def _cuCtxSetCurrent(self, context: Any) -> None:
        self._current.context = context

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> None:
        free._obj.value, total._obj.value = 3 << 20, 8 << 20

    def _cuMemAlloc_v2(self, address: Any, size: int) -> None:
        self._allocate(address, size)

    def _cuMemHostAlloc(self, address: Any, size: int, flags: int) -> None:
        self._allocate(address, size)

    def _allocate(self, address: Any, size: int) -> None:
        block = ctypes.create_string_buffer(b"\xaa" * size, size)  # nobody promises zeros
        address._obj.value = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block

    def _cuMemFree_v2(self, address: int) -> None:
        self._drain()  # as the driver does before it gives memory back
        del self.memory[address]

    def _cuMemFreeHost(self, address: int) -> None:
        self._drain()
        del self.memory[address]

    def _drain(self) -> None:
        while self.queue:
            self.queue.pop(0)()

    def _cuMemcpyHtoDAsync_v2(self, address: int, host: int, size: int, stream: int) -> None:
        self.enqueue(lambda: ctypes.memmove(address, host, size))

    def _cuMemcpyDtoHAsync_v2(self, host: int, address: int, size: int, stream: int) -> None:
        self.enqueue(lambda: ctypes.memmove(host, address, size))

    def _cuMemsetD8Async(self, address: int, value: int, size: int, stream: int) -> None:
        self.enqueue(lambda: ctypes.memset(address, value, size))

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:
        self._handle(stream)

    def _cuStreamDestroy_v2(self, stream: int) -> None: ...

    def _cuStreamSynchronize(self, stream: int) -> int | None:
        if self.capturing is not None:
            return CAPTURE_UNSUPPORTED
        self._drain()
        return None

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:
        self.capturing = []

    def _cuStreamEndCapture(self, stream: int, graph: Any) -> None:
        self.graphs[self._handle(graph)] = self.capturing or []
        self.capturing = None

    def _cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: int) -> None:
        self.graphs[self._handle(executable)] = self.graphs[graph.value]

    def _cuGraphDestroy(self, graph: Any) -> None:
        del self.graphs[graph.value]

    def _cuGraphExecDestroy(self, executable: int) -> None:
        del self.graphs[executable]

    def _cuGraphLaunch(self, executable: int, stream: int) -> None:
        for work in self.graphs[executable]:
            self.enqueue(work)

    def _cuEventCreate(self, event: Any, flags: int) -> None:
        self._handle(event)

    def _cuEventDestroy_v2(self, event: int) -> None: ...

    def _cuEventRecord(self, event: int, stream: int) -> None:
        def mark() -> None:
            self.clock_ms += 1e-3
            self.events[event] = self.clock_ms

        self.enqueue(mark)

    def _cuEventElapsedTime(self, elapsed: Any, start: int, end: int) -> None:
        elapsed._obj.value = self.events[end] - self.events[start]


_NEED_CONTEXT = (
    "cuMemAlloc_v2", "cuMemHostAlloc", "cuMemFree_v2", "cuMemFreeHost", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2",
    "cuMemsetD8Async", "cuStreamCreate", "cuStreamSynchronize", "cuStreamBeginCapture_v2", "cuGraphLaunch",
    "cuEventCreate", "cuEventRecord", "cuEventElapsedTime",
)  # fmt: skip

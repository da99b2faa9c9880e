"""NVIDIA's CUDA driver by way of ctypes: the few calls that an inference backend needs, each checked."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

from anydepth_perception.backends.base import BackendError

LIBRARY = "libcuda.so.1"
"""Comes with the driver, on a Jetson too, and has the same name whatever the version of CUDA."""

_NON_BLOCKING = 1  # a stream that does not wait for what other libraries queue on the default stream
_CAPTURE_THREAD_LOCAL = 1  # other threads may allocate while this one captures
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76

_OUT_OF_MEMORY, _NO_DEVICE = 2, 100
_LOST = (4, 46, 101, 214, 220, 226, 700, 702, 709, 714, 715, 716, 717, 718, 719, 999)
"""Results after which the context of this process answers every further call with an error."""

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_void_p, c_int, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (c_void_p, c_void_p),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_ulonglong,),
    "cuMemHostAlloc": (c_void_p, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_ulonglong, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_ulonglong, c_size_t, c_void_p),
    "cuMemsetD8Async": (c_ulonglong, ctypes.c_ubyte, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_ulonglong),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (c_void_p, c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
}
"""Every function used, with its arguments; all are in each driver since CUDA 11.4. They return a CUresult."""


class CudaError(BackendError):
    """A call of the driver that failed; the message has the call's name, CUDA's words and what to do."""


class Cuda:
    """The driver and the first GPU that this process may see; streams, events and memory are plain handles.

    A thread has to call `activate` before anything else. It takes the GPU's primary context, which TensorRT uses too.
    """

    def __init__(self, library: Any = None) -> None:
        """`library` is the loaded driver; None loads it.

        Raises:
            BackendError: there is no driver, or an old one, or no GPU.
        """
        self._library = _load() if library is None else library
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise BackendError(f"the NVIDIA driver is too old, it lacks {name}; CUDA 11.4 or newer is needed")
            function.argtypes, function.restype = arguments, c_int
        self._call("cuInit", 0)
        device, context = c_int(), c_void_p()
        self._call("cuDeviceGet", byref(device), 0)
        self._device = device.value
        self._call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._context = context

    @property
    def device_name(self) -> str:
        """The GPU's name, for example `Orin`."""
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), self._device)
        return name.value.decode(errors="replace")

    @property
    def compute_capability(self) -> str:
        """What the GPU's programs are compiled for, for example `SM87`."""
        digits = [c_int(), c_int()]
        for value, attribute in zip(digits, (_CAPABILITY_MAJOR, _CAPABILITY_MINOR), strict=True):
            self._call("cuDeviceGetAttribute", byref(value), attribute, self._device)
        return f"SM{digits[0].value}{digits[1].value}"

    @property
    def driver_version(self) -> str:
        """The newest CUDA that the driver can run, for example `12.6`."""
        version = c_int()
        self._call("cuDriverGetVersion", byref(version))
        return f"{version.value // 1000}.{version.value % 1000 // 10}"

    def activate(self) -> None:
        """Makes the GPU's context that of the calling thread; costs next to nothing where it is already."""
        self._call("cuCtxSetCurrent", self._context)

    def create_stream(self) -> int:
        """A queue of work."""
        return self._create("cuStreamCreate", _NON_BLOCKING)

    def synchronize(self, stream: int) -> None:
        """Waits for all that was queued; reports what failed there."""
        self._call("cuStreamSynchronize", stream)

    def allocate_device(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        address = c_ulonglong()
        self._call("cuMemAlloc_v2", byref(address), size)
        return address.value

    def allocate_host(self, size: int) -> int:
        """Address of `size` bytes of host memory that stays in place, which the GPU copies from by itself."""
        return self._create("cuMemHostAlloc", size, 0)

    def zero(self, address: int, size: int, stream: int) -> None:
        """Queues the clearing of memory on the GPU."""
        self._call("cuMemsetD8Async", address, 0, size, stream)

    def upload(self, address: int, host: int, size: int, stream: int) -> None:
        """Queues a copy to the GPU."""
        self._call("cuMemcpyHtoDAsync_v2", address, host, size, stream)

    def download(self, host: int, address: int, size: int, stream: int) -> None:
        """Queues a copy from the GPU."""
        self._call("cuMemcpyDtoHAsync_v2", host, address, size, stream)

    def create_event(self) -> int:
        """A mark in a queue, with its time."""
        return self._create("cuEventCreate", 0)

    def record(self, event: int, stream: int) -> None:
        """Queues the mark."""
        self._call("cuEventRecord", event, stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two marks that the GPU has reached."""
        elapsed = c_float()
        self._call("cuEventElapsedTime", byref(elapsed), start, end)
        return elapsed.value

    def begin_capture(self, stream: int) -> None:
        """From now on what this thread queues is kept as a graph and not run."""
        self._call("cuStreamBeginCapture_v2", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Ends a capture and makes what it kept ready for `launch`."""
        graph = c_void_p()
        self._call("cuStreamEndCapture", stream, byref(graph))
        try:
            return self._create("cuGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def abort_capture(self, stream: int) -> None:
        """Ends a capture in which something failed; the stream can be used again."""
        graph = c_void_p()
        if self._library.cuStreamEndCapture(stream, byref(graph)) == 0 and graph.value:
            self._library.cuGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        """Queues a run of a graph."""
        self._call("cuGraphLaunch", graph, stream)

    def release(self, function: str, handle: int) -> None:
        """Frees by the driver's `function` what an object held; on a lost GPU there is nothing to free."""
        if self._library.cuCtxSetCurrent(self._context) == 0:
            getattr(self._library, function)(handle)

    def _create(self, function: str, *arguments: Any) -> int:
        handle = c_void_p()
        self._call(function, byref(handle), *arguments)
        return handle.value or 0

    def _call(self, function: str, *arguments: Any) -> None:
        result = getattr(self._library, function)(*arguments)
        if result != 0:
            raise CudaError(f"{_public_name(function)} failed: {self._describe(result)}{self._advice(result)}")

    def _describe(self, result: int) -> str:
        """CUDA's name of an error and its words for it."""
        texts = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            if getattr(self._library, function)(result, byref(text)) == 0 and text.value:
                texts.append(text.value.decode(errors="replace"))
        return ", ".join(texts) or f"error {result}"

    def _advice(self, result: int) -> str:
        if result == _NO_DEVICE:
            return "; no GPU is visible to this process (see nvidia-smi and CUDA_VISIBLE_DEVICES)"
        if result == _OUT_OF_MEMORY:
            free, total = c_size_t(), c_size_t()
            if self._library.cuMemGetInfo_v2(byref(free), byref(total)) != 0:
                return ""
            return f"; {free.value >> 20} of {total.value >> 20} MiB are free: keep fewer rungs or end other programs"
        if result in _LOST:
            return "; the GPU is lost to this process: restart it, and look for Xid or NVRM in the kernel's log"
        return ""


def _load() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise BackendError(f"there is no NVIDIA driver on this machine: {error}") from error


def _public_name(function: str) -> str:
    """As CUDA's documentation calls it."""
    return function.removesuffix("_v2")

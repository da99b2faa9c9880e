"""The TensorRT backend: float16 engines on an NVIDIA GPU, each run as one CUDA graph."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from anydepth_perception.backends.base import BackendError, Buffer, Placement, matching_buffer
from anydepth_perception.backends.cuda import Cuda
from anydepth_perception.backends.cuda_memory import CudaDevice, DeviceBuffer
from anydepth_perception.backends.tensorrt_builder import PRECISIONS, BuildOptions, build_engine
from anydepth_perception.backends.tensorrt_cache import LibraryCache
from anydepth_perception.backends.tensorrt_library import TensorRtLibrary, import_tensorrt
from anydepth_perception.bundle.manifest import TensorSpec

_LOG = logging.getLogger(__name__)


class TensorRtBackend:
    """Compiles graphs with TensorRT or TensorRT-RTX for the first GPU.

    Everything runs on one stream. Any thread may use the backend: threads take turns, frame by frame at most.
    """

    def __init__(
        self, precision: str = "float16", workspace_bytes: int | None = None, timing_cache: Path | None = None
    ) -> None:
        """Opens the GPU.

        Args:
            precision: `float32` or `float16`; what a bundle quantises itself is INT8 with either.
            workspace_bytes: most memory that a layer may take while it computes; None leaves it to TensorRT.
            timing_cache: file that keeps measurements of kernels (with TensorRT-RTX: the kernels) for later
                processes; None keeps them for this one.

        Raises:
            BackendError: an argument is not accepted, or TensorRT, the driver or a GPU is missing or too old.
        """
        if precision not in PRECISIONS:
            raise BackendError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        if workspace_bytes is not None and workspace_bytes < 1:
            raise BackendError(f"workspace_bytes is {workspace_bytes}, expected 1 or more, or None")
        self._device = CudaDevice(Cuda())
        self._sm = self._device.cuda.compute_capability
        self._library = import_tensorrt(self._sm)
        self._precision = precision
        self._workspace_bytes = workspace_bytes
        self._runtime = _create_runtime(self._library)
        key = f"{self._library.name} {self.version} {self._sm} {self._device.cuda.device_name}"
        self._cache = LibraryCache(timing_cache, key)
        self._kernels: Any = None

    @property
    def name(self) -> str:
        """`tensorrt`."""
        return "tensorrt"

    @property
    def version(self) -> str:
        """Version of the library, which says whether it is TensorRT-RTX."""
        return f"{self._library.version} RTX" if self._library.is_rtx else self._library.version

    @property
    def precision(self) -> str:
        """Arithmetic of what the bundle does not quantise."""
        return self._precision

    @property
    def threads(self) -> int:
        """0: the GPU does the work."""
        return 0

    @property
    def device(self) -> str:
        """Compute capability, for example `SM87`."""
        return self._sm

    @property
    def flags(self) -> Mapping[str, str]:
        """What changes engines beside the precision."""
        workspace = "default" if self._workspace_bytes is None else str(self._workspace_bytes)
        typing = "strong" if self._library.is_strongly_typed else "weak"
        return {"workspace_bytes": workspace, "typing": typing}

    def build(self, model: onnx.ModelProto) -> bytes:
        """Builds a serialised engine for this GPU; takes seconds to minutes.

        Raises:
            BackendError: TensorRT refuses the graph; names the nodes and the reason.
        """
        self._device.cuda.activate()
        options = BuildOptions(
            precision=self._precision,
            compute_capability=self._sm if self._library.is_rtx else None,
            workspace_bytes=self._workspace_bytes,
        )
        try:
            engine, timings = build_engine(self._library, model, options, self._cache.content)
        except MemoryError as error:
            raise BackendError(f"{self._library.name} has no memory to compile {model.graph.name!r}") from error
        if self._library.times_kernels:
            self._cache.update(timings)
        return engine

    def load(self, serialized: bytes, name: str) -> TensorRtEngine:
        """Makes an engine of what `build` returned.

        Raises:
            BackendError: TensorRT refuses it, for example one of another version or GPU, or there is no memory.
        """
        self._device.cuda.activate()
        engine = self._runtime.deserialize_cuda_engine(serialized)
        if engine is None:
            raise BackendError(f"{self._library.name} cannot load {name!r}: {self._library.reason()}")
        if self._kernels is None:
            self._kernels = self._library.create_runtime_cache(engine, self._cache.content)
        context = self._library.create_context(engine, self._kernels)
        if context is None:
            raise BackendError(f"{self._library.name} cannot prepare {name!r}: {self._library.reason()}")
        return TensorRtEngine(self._library, self._device, engine, context, name, self._keep_kernels)

    def compile(self, model: onnx.ModelProto) -> TensorRtEngine:
        """Builds an engine and loads it."""
        return self.load(self.build(model), model.graph.name)

    def _keep_kernels(self) -> None:
        if self._kernels is not None:
            self._cache.update(bytes(self._kernels.serialize()))

    def allocate(self, placements: Sequence[Placement]) -> dict[str, Buffer]:
        """Memory on the GPU and its pinned mirror on the host; see `Backend.allocate`."""
        return self._device.allocate(placements)

    def synchronize(self) -> None:
        """Waits for all that was queued.

        Raises:
            BackendError: something of it failed.
        """
        self._device.synchronize()


class TensorRtEngine:
    """One execution context. After its first run it is captured into a CUDA graph, which later runs launch."""

    def __init__(
        self,
        library: TensorRtLibrary,
        device: CudaDevice,
        engine: Any,
        context: Any,
        name: str,
        after_first_run: Callable[[], None],
    ) -> None:
        """Use `TensorRtBackend.load`. TensorRT-RTX has compiled all kernels by the end of the first run.

        Raises:
            BackendError: a tensor's shape is not static, or its type is one that no buffer has.
        """
        self._library = library
        self._device = device
        self._engine = engine  # the context needs it
        self._context = context
        self._name = name
        self._after_first_run = after_first_run
        self.inputs, self.outputs = _boundary(library, engine, name)
        self._buffers: list[Buffer] = []
        self._graph: _Graph | None = None
        self._is_warm = False
        self._may_capture = True
        self._started, self._ended = self._create_event(), self._create_event()
        self._has_run = False

    @property
    def runs_as_graph(self) -> bool:
        """Whether the next run launches a CUDA graph."""
        return self._graph is not None

    @property
    def last_run_ms(self) -> float:
        """Milliseconds on the GPU between the marks before and behind the last run."""
        if not self._has_run:
            return 0.0
        with self._device.lock:
            self._device.cuda.activate()
            return self._device.cuda.elapsed_ms(self._started, self._ended)

    def bind(self, buffers: Mapping[str, Buffer]) -> None:
        """Takes buffers of this backend; see `Engine.bind`."""
        bound = [matching_buffer(buffers, spec, self._name) for spec in (*self.inputs, *self.outputs)]
        addresses = [(buffer.spec.name, _address(buffer, self._name)) for buffer in bound]
        device = self._device
        with device.lock:
            device.cuda.activate()
            device.cuda.synchronize(device.stream)  # runs in progress use the old ones
            self._graph, self._buffers = None, []
            for name, address in addresses:
                if not self._context.set_tensor_address(name, address):
                    reason = self._library.reason()
                    raise BackendError(f"TensorRT refuses the memory of {name!r} in {self._name!r}: {reason}")
            self._buffers = bound
            if self._is_warm:
                self._capture()

    def run(self) -> None:
        """Queues one run; see `Engine.run`."""
        if not self._buffers:
            raise BackendError(f"engine {self._name!r} has no buffers yet, bind them first")
        device, cuda = self._device, self._device.cuda
        with device.lock:
            cuda.activate()
            cuda.record(self._started, device.stream)
            if self._graph is not None:
                cuda.launch(self._graph.handle, device.stream)
            else:
                self._enqueue()
            cuda.record(self._ended, device.stream)
            self._has_run = True
            if not self._is_warm:
                self._is_warm = True
                self._capture()
                self._after_first_run()

    def _create_event(self) -> int:
        event = self._device.cuda.create_event()
        self._device.release_with(self, "cuEventDestroy_v2", event)
        return event

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise BackendError(f"TensorRT failed to run {self._name!r}: {self._library.reason()}")

    def _capture(self) -> None:
        """Keeps one run as a graph; TensorRT has to have run once before, to be done with its preparations.

        Where that does not work, runs are queued kernel by kernel, which takes longer on the host.
        """
        if not self._may_capture:
            return
        try:
            if not self._library.may_capture(self._context, self._device.stream):
                raise BackendError("TensorRT says that it cannot be captured")
            self._graph = _Graph(self._device, self._captured())
        except BackendError as error:
            self._may_capture = False
            _LOG.warning("engine %r runs without a CUDA graph, a little slower: %s", self._name, error)

    def _captured(self) -> int:
        device = self._device
        with _no_garbage_collection():
            device.cuda.begin_capture(device.stream)
            try:
                self._enqueue()
            except BackendError:
                device.cuda.abort_capture(device.stream)
                raise
            return device.cuda.end_capture(device.stream)


class _Graph:
    """A CUDA graph, freed with this object."""

    def __init__(self, device: CudaDevice, handle: int) -> None:
        self.handle = handle
        device.release_with(self, "cuGraphExecDestroy", handle)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """For a capture, which ends when its thread frees memory of the GPU, as a collected engine would."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def tensorrt_problem() -> str | None:
    """Why TensorRT cannot be used on this machine, in one line; None where it can."""
    try:
        cuda = Cuda()  # before TensorRT, which takes long to load
        cuda.activate()
        _create_runtime(import_tensorrt(cuda.compute_capability))
    except BackendError as error:
        return str(error)
    return None


def _create_runtime(library: TensorRtLibrary) -> Any:
    try:
        return library.module.Runtime(library.logger)
    except Exception as error:  # the binding raises TypeError where the library returned nothing
        raise BackendError(f"{library.name} {library.version} does not start: {library.reason()}") from error


def _boundary(library: TensorRtLibrary, engine: Any, graph: str) -> tuple[tuple[TensorSpec, ...], ...]:
    """Inputs and outputs of an engine."""
    trt = library.module
    sides: dict[Any, list[TensorSpec]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)
        dtype = library.dtype(kind)
        is_static = min(shape, default=1) > 0 and engine.get_tensor_location(name) == trt.TensorLocation.DEVICE
        if dtype is None or not is_static:
            raise BackendError(f"engine {graph!r}: {name} is {kind}{list(shape)}, expected a static shape on the GPU")
        sides[engine.get_tensor_mode(name)].append(TensorSpec(name, shape, dtype))
    return tuple(sides[trt.TensorIOMode.INPUT]), tuple(sides[trt.TensorIOMode.OUTPUT])


def _address(buffer: Buffer, graph: str) -> int:
    if not isinstance(buffer, DeviceBuffer):
        raise BackendError(f"engine {graph!r} was given memory of another backend for {buffer.spec.name!r}")
    return buffer.address

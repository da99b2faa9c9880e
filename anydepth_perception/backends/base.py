"""The protocol of inference backends: build a graph once, bind its tensors to buffers, run it many times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from anydepth_perception.bundle.manifest import TensorSpec


class BackendError(RuntimeError):
    """A backend that is not available here, or that cannot compile or run a graph; the message says why."""


@dataclass(frozen=True)
class Placement:
    """A tensor and where it begins in a block of memory, in bytes. Tensors of one block may overlap."""

    spec: TensorSpec
    offset: int = 0

    @property
    def end(self) -> int:
        """First byte behind the tensor."""
        return self.offset + size_bytes(self.spec)


def size_bytes(spec: TensorSpec) -> int:
    """Bytes that the elements of a tensor take."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


class Buffer(Protocol):
    """Memory of one tensor, which a backend's engines read and write, and the host's view of it."""

    @property
    def spec(self) -> TensorSpec:
        """Name, shape and type of the tensor."""
        ...

    @property
    def host(self) -> np.ndarray:
        """The tensor in host memory: always the same array; on a CPU it is the memory that engines use."""
        ...

    def upload(self) -> None:
        """Queues the copy from `host` to the device; does nothing on a CPU."""
        ...

    def download(self) -> None:
        """Queues the copy from the device to `host`, which is complete after `Backend.synchronize`."""
        ...


class Engine(Protocol):
    """A compiled graph. One thread at a time may use it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it reads."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it writes."""
        ...

    def bind(self, buffers: Mapping[str, Buffer]) -> None:
        """Takes the buffers of all inputs and outputs by name, for all runs until the next `bind`.

        Names that the engine does not have are ignored. The engine keeps the buffers alive.

        Raises:
            BackendError: a buffer is missing, or is not of the tensor's shape and type.
        """
        ...

    def run(self) -> None:
        """Queues one run behind what was queued before; on a CPU it is done on return.

        Raises:
            BackendError: the engine is not bound, or the run failed.
        """
        ...

    @property
    def last_run_ms(self) -> float:
        """Milliseconds that the last run took where it was computed; after `Backend.synchronize`."""
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

    @property
    def device(self) -> str:
        """What engines are built for: `SM87` (a GPU's compute capability), or the CPU's model and features."""
        ...

    @property
    def flags(self) -> Mapping[str, str]:
        """All other options that change what `build` makes. Equal options, graph, library and device: equal engines."""
        ...

    def build(self, model: onnx.ModelProto) -> bytes:
        """Builds an engine from a graph whose inputs and outputs have static shapes, in a form that can be kept.

        Raises:
            BackendError: the graph is not accepted, or there is no memory or room on disk.
        """
        ...

    def load(self, serialized: bytes, name: str) -> Engine:
        """Makes an engine of what `build` returned, with the same library on the same device; it is not bound yet.

        The bytes must come from `build`: what a library does with others is not defined, so that whoever kept them
        has to know that they are the same. `name` is the graph's, for messages.

        Raises:
            BackendError: the library refuses them, or there is no memory.
        """
        ...

    def compile(self, model: onnx.ModelProto) -> Engine:
        """Builds an engine from a graph and loads it.

        Raises:
            BackendError: see `build` and `load`.
        """
        ...

    def allocate(self, placements: Sequence[Placement]) -> dict[str, Buffer]:
        """Allocates one block of memory, zeroed, with tensors at the given offsets; their buffers by name.

        Offsets are multiples of the size of the tensor's elements.

        Raises:
            BackendError: there is not enough memory.
        """
        ...

    def synchronize(self) -> None:
        """Waits until all that was queued is done; does nothing on a CPU."""
        ...


def matching_buffer(buffers: Mapping[str, Buffer], spec: TensorSpec, graph: str) -> Buffer:
    """The buffer of a tensor of `graph`, out of those given to `Engine.bind`.

    Raises:
        BackendError: it is missing, or is not of the tensor's shape and type.
    """
    buffer = buffers.get(spec.name)
    if buffer is None:
        raise BackendError(f"engine {graph!r} needs a buffer for {spec}, given are {', '.join(buffers) or 'none'}")
    array = buffer.host
    if array.shape != spec.shape or array.dtype != spec.dtype or not array.flags.c_contiguous:
        layout = "" if array.flags.c_contiguous else " not contiguous"
        raise BackendError(
            f"engine {graph!r} was given {array.dtype}{list(array.shape)}{layout} for {spec.name!r}, "
            f"expected contiguous {np.dtype(spec.dtype)}{list(spec.shape)}"
        )
    return buffer


def run_once(backend: Backend, model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compiles `model`, runs it on `inputs` and returns copies of its outputs by name: for tests and tools.

    Raises:
        BackendError: the graph is not accepted, an input is missing or of another shape or type, or the run failed.
    """
    engine = backend.compile(model)
    buffers: dict[str, Buffer] = {}
    for spec in (*engine.inputs, *engine.outputs):
        buffers.update(backend.allocate([Placement(spec)]))
    engine.bind(buffers)
    for spec in engine.inputs:
        if spec.name not in inputs:
            raise BackendError(f"input {spec} is missing, given are {', '.join(inputs) or 'none'}")
        value = inputs[spec.name]
        if value.shape != spec.shape or value.dtype != spec.dtype:
            raise BackendError(f"input {spec.name!r} is {value.dtype}{list(value.shape)}, expected {spec}")
        np.copyto(buffers[spec.name].host, value)
        buffers[spec.name].upload()
    engine.run()
    for spec in engine.outputs:
        buffers[spec.name].download()
    backend.synchronize()
    return {spec.name: buffers[spec.name].host.copy() for spec in engine.outputs}

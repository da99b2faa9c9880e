"""The OpenVINO backend: float32 on the CPU, all buffers bound before the first frame; an optional extra."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, cast

import onnx

from anydepth_perception.backends.base import BackendError, Buffer, Placement, matching_buffer
from anydepth_perception.backends.cpu import describe_cpu, physical_core_count
from anydepth_perception.backends.host_memory import allocate_on_host
from anydepth_perception.bundle.manifest import TensorSpec

_DTYPES = {"u8": "uint8", "i32": "int32", "i64": "int64", "f16": "float16", "f32": "float32", "boolean": "bool"}

_NOISE = ("Exception from ", "Check '", "FrontEnd API failed", "While validating ", "Summary:", "To facilitate ")
"""How lines of its messages begin that say where in OpenVINO's source a problem showed, but not which."""


def import_openvino() -> Any:
    """The module `openvino`, which the robot half does not need otherwise.

    Raises:
        BackendError: it cannot be imported.
    """
    try:
        # Its import reports itself to a host of the vendor's choice, unless this module cannot be imported.
        sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
        import openvino
    except ImportError as error:
        raise BackendError(f"backend openvino needs the package openvino (pip install openvino): {error}") from error
    return openvino


class OpenVinoBackend:
    """Compiles graphs into OpenVINO models on the CPU."""

    def __init__(self, threads: int = 0) -> None:
        """`threads` per engine; 0 takes as many as there are physical cores.

        Raises:
            BackendError: `threads` is negative, or OpenVINO is not installed.
        """
        if threads < 0:
            raise BackendError(f"threads is {threads}, expected 0 (all physical cores) or more")
        self._openvino = import_openvino()
        self._core = self._openvino.Core()
        self._threads = threads or physical_core_count()

    @property
    def name(self) -> str:
        """`openvino`."""
        return "openvino"

    @property
    def version(self) -> str:
        """Version of OpenVINO, without the build."""
        return str(self._openvino.__version__).split("-")[0]

    @property
    def precision(self) -> str:
        """`float32`."""
        return "float32"

    @property
    def threads(self) -> int:
        """Threads of every engine."""
        return self._threads

    @property
    def device(self) -> str:
        """The CPU, for which OpenVINO generates code."""
        return describe_cpu()

    @property
    def flags(self) -> Mapping[str, str]:
        """The number of threads, which OpenVINO keeps in an engine beside the graph."""
        return {"threads": str(self._threads)}

    def build(self, model: onnx.ModelProto) -> bytes:
        """OpenVINO's own form of the graph as rewritten for this CPU.

        Raises:
            BackendError: OpenVINO refuses the graph, or there is no memory.
        """
        with _failures("compile", model.graph.name):
            graph = self._core.read_model(model.SerializeToString())
            compiled = self._core.compile_model(graph, "CPU", self._options())
            return bytes(compiled.export_model().getvalue())

    def load(self, serialized: bytes, name: str) -> OpenVinoEngine:
        """An engine of what `build` returned.

        Raises:
            BackendError: OpenVINO refuses it, a shape is not static, or there is no memory.
        """
        with _failures("load", name):
            compiled = self._core.import_model(serialized, "CPU", self._options())
        return OpenVinoEngine(self._openvino, compiled, name)

    def compile(self, model: onnx.ModelProto) -> OpenVinoEngine:
        """Builds an engine from `model` and loads it; see `build` and `load`."""
        return self.load(self.build(model), model.graph.name)

    def allocate(self, placements: Sequence[Placement]) -> dict[str, Buffer]:
        """Buffers in host memory; see `Backend.allocate`."""
        return allocate_on_host(placements)

    def synchronize(self) -> None:
        """There is nothing to wait for."""

    def _options(self) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            # On a CPU that has bfloat16, OpenVINO takes it unasked, which moves logits by some tenths.
            "INFERENCE_PRECISION_HINT": "f32",
            # A pinned thread waits for its core while another process has it, even if another core is idle.
            "ENABLE_CPU_PINNING": False,
        }


class OpenVinoEngine:
    """One compiled model whose inputs and outputs are memory that stays where it is."""

    def __init__(self, openvino: Any, compiled: Any, name: str) -> None:
        """Use `OpenVinoBackend.load`. `name` is the graph's, for errors.

        Raises:
            BackendError: a shape is not static, or a type is one that no buffer has.
        """
        self._openvino = openvino
        self._name = name
        self._request = compiled.create_infer_request()
        inputs = {port.get_any_name(): port for port in compiled.inputs}
        outputs = {port.get_any_name(): port for port in compiled.outputs}
        self.inputs = tuple(_spec(label, port, name) for label, port in inputs.items())
        self.outputs = tuple(_spec(label, port, name) for label, port in outputs.items())
        self._ports = {**inputs, **outputs}
        self._buffers: list[Buffer] = []
        self._last_run_s = 0.0

    @property
    def last_run_ms(self) -> float:
        """Wall time of the last run."""
        return self._last_run_s * 1e3

    def bind(self, buffers: Mapping[str, Buffer]) -> None:
        """Binds all inputs and outputs; see `Engine.bind`."""
        bound = [matching_buffer(buffers, spec, self._name) for spec in (*self.inputs, *self.outputs)]
        for buffer in bound:
            tensor = self._openvino.Tensor(buffer.host, shared_memory=True)
            self._request.set_tensor(self._ports[buffer.spec.name], tensor)
        self._buffers = bound

    def run(self) -> None:
        """Runs on the bound buffers; see `Engine.run`."""
        if not self._buffers:
            raise BackendError(f"engine {self._name!r} has no buffers yet, bind them first")
        started = time.perf_counter()
        try:
            self._request.infer(share_outputs=True)  # else it returns copies of the outputs
        except Exception as error:  # see _failures
            raise BackendError(f"OpenVINO failed to run {self._name!r}: {_reason(error)}") from error
        self._last_run_s = time.perf_counter() - started


@contextlib.contextmanager
def _failures(task: str, name: str) -> Iterator[None]:
    """Turns what goes wrong while `task` is done to the graph `name` into a BackendError of one line."""
    try:
        yield
    except MemoryError as error:
        raise BackendError(f"no memory to {task} {name!r} with OpenVINO") from error
    except Exception as error:  # OpenVINO raises plain RuntimeError, and protobuf its own
        raise BackendError(f"OpenVINO cannot {task} {name!r}: {_reason(error)}") from error


def _spec(name: str, port: Any, graph: str) -> TensorSpec:
    shape, kind = port.get_partial_shape(), port.get_element_type().get_type_name()
    if not shape.is_static or 0 in shape.to_shape() or kind not in _DTYPES:
        accepted = ", ".join(_DTYPES)
        raise BackendError(f"graph {graph!r}: {name} is {kind}{shape}, expected a static shape of type {accepted}")
    return TensorSpec(name, tuple(shape.to_shape()), _DTYPES[kind])


def _reason(error: Exception) -> str:
    """What a message of many lines says, in one."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith(_NOISE)) or type(error).__name__

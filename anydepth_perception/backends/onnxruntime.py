"""The ONNX Runtime backend: on the CPU, weights in memory once, all buffers bound before the first frame."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime

from anydepth_perception.backends.base import BackendError, Buffer, Placement, matching_buffer
from anydepth_perception.backends.cpu import describe_cpu, physical_core_count
from anydepth_perception.backends.host_memory import allocate_on_host, return_free_memory
from anydepth_perception.backends.onnxruntime_weights import SharedWeights, write_hollow
from anydepth_perception.bundle.manifest import TensorSpec

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(bool)": "bool",
}

_SPIN_US = 200
"""Longest that a thread spins; longer gained nothing, and costs when another process wants the core."""


class OnnxRuntimeBackend:
    """Builds ONNX Runtime sessions on the CPU from graphs. Engines of one backend share their weights."""

    def __init__(self, threads: int = 0) -> None:
        """`threads` per engine; 0 takes as many as there are physical cores.

        Raises:
            BackendError: `threads` is negative.
        """
        if threads < 0:
            raise BackendError(f"threads is {threads}, expected 0 (all physical cores) or more")
        self._threads = threads or physical_core_count()
        self._weights = SharedWeights()

    @property
    def name(self) -> str:
        """`onnxruntime`."""
        return "onnxruntime"

    @property
    def version(self) -> str:
        """Version of ONNX Runtime."""
        return str(onnxruntime.__version__)

    @property
    def precision(self) -> str:
        """`float32`."""
        return "float32"

    @property
    def threads(self) -> int:
        """Threads of every engine."""
        return self._threads

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that this backend's engines share."""
        return self._weights.total_bytes

    @property
    def device(self) -> str:
        """The CPU: the layout of weights in an optimised graph depends on its vector instructions."""
        return describe_cpu()

    @property
    def flags(self) -> Mapping[str, str]:
        """None: the number of threads does not change what is built."""
        return {}

    def build(self, model: onnx.ModelProto) -> bytes:
        """The graph as ONNX Runtime rewrites it for this CPU, as ONNX: only now do equal weights look equal.

        Raises:
            BackendError: ONNX Runtime refuses the graph, or there is no memory or no room for a temporary file.
        """
        name = model.graph.name
        with _failures("compile", name), tempfile.TemporaryDirectory(prefix="anydepth-") as folder:
            path = Path(folder) / "optimised.onnx"
            options = self._session_options()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.disable_prepacking", "1")
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return path.read_bytes()

    def load(self, serialized: bytes, name: str) -> OnnxRuntimeEngine:
        """An engine of what `build` returned; its weights are those of other engines where they are equal.

        Raises:
            BackendError: ONNX Runtime refuses it, a shape is not static, or there is no memory or no room for
                temporary files.
        """
        with _failures("load", name), tempfile.TemporaryDirectory(prefix="anydepth-") as folder:
            model = onnx.load_model_from_string(serialized)
            weights = self._weights.take_from(model)
            options = self._session_options()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            for label, value in weights.items():
                options.add_initializer(label, value)
            path = write_hollow(model, Path(folder))
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return OnnxRuntimeEngine(session, weights, name)

    def compile(self, model: onnx.ModelProto) -> OnnxRuntimeEngine:
        """Builds an engine from `model` and loads it; see `build` and `load`."""
        return self.load(self.build(model), model.graph.name)

    def allocate(self, placements: Sequence[Placement]) -> dict[str, Buffer]:
        """Buffers in host memory; see `Backend.allocate`."""
        return allocate_on_host(placements)

    def synchronize(self) -> None:
        """There is nothing to wait for."""

    def _session_options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Within a run, threads that wait for the next operator spin for a moment: sleeping and waking costs a
        # fifth of a small network's time. After it they stop, or they would take the cores from the other engines
        # and from the rest of the robot.
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # Engines run one at a time, so that their intermediate tensors can share memory. One block per engine,
        # as a memory pattern asks for, would leave holes between engines whose blocks differ a little.
        _register_shared_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False
        return options


class OnnxRuntimeEngine:
    """One session whose inputs and outputs are bound to memory that stays where it is."""

    def __init__(
        self, session: onnxruntime.InferenceSession, weights: Mapping[str, onnxruntime.OrtValue], name: str
    ) -> None:
        """Use `OnnxRuntimeBackend.load`. `weights` are kept for the session; `name` is the graph's, for errors."""
        self._session = session
        self._weights = weights
        self._name = name
        self.inputs = tuple(_spec(value, name) for value in session.get_inputs())
        self.outputs = tuple(_spec(value, name) for value in session.get_outputs())
        self._binding: onnxruntime.IOBinding | None = None
        self._buffers: list[Buffer] = []
        self._last_run_s = 0.0

    @property
    def last_run_ms(self) -> float:
        """Wall time of the last run."""
        return self._last_run_s * 1e3

    def bind(self, buffers: Mapping[str, Buffer]) -> None:
        """Binds all inputs and outputs; see `Engine.bind`."""
        binding, bound = self._session.io_binding(), []
        for specs, bind in ((self.inputs, binding.bind_input), (self.outputs, binding.bind_output)):
            for spec in specs:
                buffer = matching_buffer(buffers, spec, self._name)
                array = buffer.host
                bind(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
                bound.append(buffer)
        self._binding, self._buffers = binding, bound
        return_free_memory()  # here, and not at the end of compile, as the caller no longer holds the graph

    def run(self) -> None:
        """Runs on the bound buffers; see `Engine.run`."""
        if self._binding is None:
            raise BackendError(f"engine {self._name!r} has no buffers yet, bind them first")
        started = time.perf_counter()
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # see _failures
            raise BackendError(f"ONNX Runtime failed to run {self._name!r}: {_first_line(error)}") from error
        self._last_run_s = time.perf_counter() - started


@contextlib.contextmanager
def _failures(task: str, name: str) -> Iterator[None]:
    """Turns what goes wrong while `task` is done to the graph `name` into a BackendError of one line."""
    try:
        yield
    except MemoryError as error:
        raise BackendError(f"no memory to {task} {name!r} with ONNX Runtime") from error
    except OSError as error:
        raise BackendError(f"cannot {task} {name!r}, temporary files cannot be written: {error}") from error
    except Exception as error:  # ONNX Runtime's exceptions have no common base beside Exception
        raise BackendError(f"ONNX Runtime cannot {task} {name!r}: {_first_line(error)}") from error


def _spec(value: onnxruntime.NodeArg, graph: str) -> TensorSpec:
    static = all(isinstance(size, int) and size > 0 for size in value.shape)
    if not static or value.type not in _DTYPES:
        raise BackendError(f"graph {graph!r}: {value.name} is {value.type}{value.shape}, not of static shape")
    return TensorSpec(value.name, tuple(value.shape), _DTYPES[value.type])


@functools.cache
def _register_shared_arena() -> None:
    """Gives all sessions of this process one arena instead of one each; ONNX Runtime keeps it until the end."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    grow_by_what_is_asked_for = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    with contextlib.suppress(Exception):  # other code of this process has registered one, which serves as well
        onnxruntime.create_and_register_allocator(memory, grow_by_what_is_asked_for)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

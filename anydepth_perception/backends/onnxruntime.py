"""The ONNX Runtime backend: float32 on the CPU, with all buffers bound before the first frame."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import onnx
import onnxruntime

from anydepth_perception.backends.base import BackendError
from anydepth_perception.backends.cpu import physical_core_count

_NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class OnnxRuntimeBackend:
    """Compiles graphs into ONNX Runtime sessions on the CPU."""

    def __init__(self, threads: int = 0) -> None:
        """`threads` per engine; 0 takes as many as there are physical cores.

        Raises:
            BackendError: `threads` is negative.
        """
        if threads < 0:
            raise BackendError(f"threads is {threads}, expected 0 (all physical cores) or more")
        self._threads = threads or physical_core_count()

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

    def compile(self, model: onnx.ModelProto) -> OnnxRuntimeEngine:
        """Compiles `model` into an engine with its buffers allocated.

        Raises:
            BackendError: ONNX Runtime refuses the graph, or its inputs and outputs are not those of a detector.
        """
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), self._session_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base beside Exception
            raise BackendError(f"ONNX Runtime cannot compile {model.graph.name!r}: {_first_line(error)}") from error
        return OnnxRuntimeEngine(session, model.graph.name)

    def _session_options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning pool would take the cores from the other engines and from the rest of the robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # Engines run one at a time, so that their intermediate tensors can share memory.
        _register_shared_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        return options


class OnnxRuntimeEngine:
    """One session whose input and outputs are bound to memory that stays where it is."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str) -> None:
        """Use `OnnxRuntimeBackend.compile`. `name` is the graph's, for errors."""
        self._session = session
        self._name = name
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 2:
            raise BackendError(f"graph {name!r} has {len(inputs)} inputs and {len(outputs)} outputs, expected 1 and 2")
        for value in [*inputs, *outputs]:
            static = all(isinstance(size, int) and size > 0 for size in value.shape)
            if not static or value.type not in _NUMPY_TYPES:
                raise BackendError(f"graph {name!r}: {value.name} is {value.type}{value.shape}, not of static shape")
        self._input_name = inputs[0].name
        self._input_shape = tuple(inputs[0].shape)
        self._input_type = _NUMPY_TYPES[inputs[0].type]
        self._image: np.ndarray | None = None
        self._binding = session.io_binding()
        self._outputs = tuple(np.zeros(value.shape, _NUMPY_TYPES[value.type]) for value in outputs)
        for value, buffer in zip(outputs, self._outputs, strict=True):
            self._binding.bind_output(value.name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)

    def run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs on `image`, uint8 [1, H, W, 3]; see `Engine.run`."""
        if image is not self._image:
            self._bind(image)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # see compile
            raise BackendError(f"ONNX Runtime failed to run {self._name!r}: {_first_line(error)}") from error
        return self._outputs[0], self._outputs[1]

    def _bind(self, image: np.ndarray) -> None:
        if image.shape != self._input_shape or image.dtype != self._input_type or not image.flags.c_contiguous:
            layout = "" if image.flags.c_contiguous else " not contiguous"
            raise BackendError(
                f"{self._name!r} was given {image.dtype}{list(image.shape)}{layout}, "
                f"expected contiguous {np.dtype(self._input_type)}{list(self._input_shape)}"
            )
        self._binding.bind_input(self._input_name, "cpu", 0, self._input_type, image.shape, image.ctypes.data)
        self._image = image  # keeps the bound memory alive


@functools.cache
def _register_shared_arena() -> None:
    """Gives all sessions of this process one arena instead of one each; ONNX Runtime keeps it until the end."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    with contextlib.suppress(Exception):  # other code of this process has registered one, which serves as well
        onnxruntime.create_and_register_allocator(memory, None)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""Stand-ins for the modules `tensorrt` 8.6 and 10 and `tensorrt_rtx`: what they offer, run by ONNX Runtime."""

from __future__ import annotations

import ctypes
import enum
import importlib.machinery
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from simulated_cuda import SimulatedCuda

RELEASES = {"8.6": ("tensorrt", "8.6.2"), "10": ("tensorrt", "10.3.0"), "RTX": ("tensorrt_rtx", "1.7.1.116")}

Install = Callable[[str, str], types.ModuleType]
"""Puts a release, by its module and version, in the place of those that are installed."""

MAGIC = b"SIMULATED PLAN "
_NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT32": "i4", "INT64": "i8", "BOOL": "?", "UINT8": "u1"}


def simulate(name: str, version: str, cuda: SimulatedCuda) -> types.ModuleType:
    """A module that builds any graph ONNX Runtime takes, and runs it on `cuda`; `journal` tells what was asked of it.

    Args:
        name: `tensorrt` or `tensorrt_rtx`.
        version: which decides what it offers: strong types from 10 on, and with TensorRT-RTX only them.
        cuda: whose queue the engines use.
    """
    is_rtx = name == "tensorrt_rtx"
    has_strong_types = is_rtx or version.startswith("10")
    trt: Any = types.ModuleType(name)
    trt.__spec__ = importlib.machinery.ModuleSpec(name, None)
    trt.__version__ = version
    trt.journal = Journal()
    trt.cuda = cuda
    trt.capturable = True
    creation = [*(() if is_rtx else ("EXPLICIT_BATCH",)), *(("STRONGLY_TYPED",) if has_strong_types else ())]
    trt.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", creation, start=0)
    builder_flags = ["TF32"] if is_rtx else ["TF32", "FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    trt.BuilderFlag = enum.Enum("BuilderFlag", builder_flags)
    trt.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
    trt.DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8", "BF16"])
    trt.LayerType = enum.Enum("LayerType", ["CONVOLUTION", "MATRIX_MULTIPLY", "TOPK", "ACTIVATION"])
    trt.TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    trt.TensorLocation = enum.Enum("TensorLocation", ["DEVICE", "HOST"])
    if is_rtx:
        trt.ComputeCapability = enum.Enum("ComputeCapability", ["CURRENT", "SM86", "SM89"])
    trt.ILogger = Logger
    for kind in (Builder, OnnxParser, Runtime):
        setattr(trt, kind.__name__, _bound(kind, trt))
    return trt


class Journal:
    """What was asked of the library."""

    def __init__(self) -> None:
        self.network_flags: set[str] = set()
        self.set_flags: list[str] = []
        self.cleared_flags: list[str] = []
        self.workspace_bytes: int | None = None
        self.compute_capability: str | None = None
        self.timing_caches: list[bytes] = []
        self.runtime_caches: list[bytes] = []
        self.graphs: list[onnx.ModelProto] = []
        self.plain_runs = 0


def _bound(kind: type, trt: Any) -> type:
    return type(kind.__name__, (kind,), {"trt": trt})


class Logger:
    ERROR, INTERNAL_ERROR = "error", "internal error"

    def __init__(self) -> None: ...


class Builder:
    trt: Any

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Any:
        members = self.trt.NetworkDefinitionCreationFlag.__members__
        self.trt.journal.network_flags = {name for name, value in members.items() if flags >> value & 1}
        return types.SimpleNamespace(model=None, num_layers=0, num_outputs=0)

    def create_builder_config(self) -> Config:
        return Config(self.trt)

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        try:
            plan = network.model.SerializeToString()
            onnx.checker.check_model(plan, full_check=True)
        except Exception as error:
            self.logger.log("error", str(error))
            return None
        cache = None if config.timing_cache is None else config.timing_cache()
        if cache is not None:
            cache.content += b"."
        return MAGIC + self.trt.__version__.encode() + b"\n" + plan


class Config:
    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.timing_cache: weakref.ref[TimingCache] | None = None
        self.num_compute_capabilities = 0

    def set_flag(self, flag: Any) -> None:
        self.trt.journal.set_flags.append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.trt.journal.cleared_flags.append(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.trt.journal.workspace_bytes = size

    def set_compute_capability(self, capability: Any, index: int) -> None:
        self.trt.journal.compute_capability = capability.name

    def create_timing_cache(self, content: bytes) -> TimingCache:
        self.trt.journal.timing_caches.append(content)
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        accepted = not cache.content or cache.content.startswith(b".")
        if accepted:
            self.timing_cache = weakref.ref(cache)  # whoever made it has to keep it
        return accepted


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class OnnxParser:
    trt: Any

    def __init__(self, network: Any, logger: Any) -> None:
        self.network = network
        self.errors: list[Any] = []

    def parse(self, data: bytes) -> bool:
        model = onnx.load_model_from_string(data)
        self.trt.journal.graphs.append(model)
        self.network.model = model
        self.errors = [
            self._error(index, node) for index, node in enumerate(model.graph.node) if node.op_type == "NoSuchOperator"
        ]
        return not self.errors

    def _error(self, index: int, node: onnx.NodeProto) -> Any:
        error: dict[str, Any] = {"node": lambda: index, "desc": lambda: "no importer\nfor it"}
        if not self.trt.__version__.startswith("8"):
            error |= {"node_name": lambda: node.name, "node_operator": lambda: node.op_type}
        return types.SimpleNamespace(**error)

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return self.errors[index]


class Runtime:
    trt: Any

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        head = MAGIC + self.trt.__version__.encode() + b"\n"
        if not data.startswith(head):
            self.logger.log("error", "the engine was built by another version")
            return None
        return Engine(self.trt, data[len(head) :])


class Engine:
    def __init__(self, trt: Any, plan: bytes) -> None:
        self.trt = trt
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(plan, options, providers=["CPUExecutionProvider"])
        constants = {tensor.name for tensor in onnx.load_model_from_string(plan).graph.initializer}
        self.inputs = {node.name: node for node in self.session.get_inputs() if node.name not in constants}
        self.tensors = {**self.inputs, **{node.name: node for node in self.session.get_outputs()}}

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name].shape

    def get_tensor_dtype(self, name: str) -> Any:
        return {
            "tensor(float)": self.trt.DataType.FLOAT,
            "tensor(float16)": self.trt.DataType.HALF,
            "tensor(int32)": self.trt.DataType.INT32,
            "tensor(int64)": self.trt.DataType.INT64,
            "tensor(bool)": self.trt.DataType.BOOL,
            "tensor(uint8)": self.trt.DataType.UINT8,
        }[self.tensors[name].type]

    def get_tensor_mode(self, name: str) -> Any:
        return self.trt.TensorIOMode.INPUT if name in self.inputs else self.trt.TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> Any:
        return self.trt.TensorLocation.DEVICE

    def create_runtime_config(self) -> RuntimeConfig:
        assert self.trt.__name__ == "tensorrt_rtx", "TensorRT has no runtime cache"
        return RuntimeConfig(self.trt)

    def create_execution_context(self, config: RuntimeConfig | None = None) -> Context:
        return Context(self.trt, self, None if config is None else config.cache)


class RuntimeConfig:
    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self.trt)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.content = b""

    def deserialize(self, content: bytes) -> bool:
        self.trt.journal.runtime_caches.append(content)
        self.content = content if content.startswith(b"kernel") else b""
        return bool(self.content)

    def reset(self) -> bool:
        self.content = b""
        return True

    def serialize(self) -> bytes:
        return self.content


class Context:
    """Runs the graph on the memory whose addresses it has, when its turn in the queue comes."""

    def __init__(self, trt: Any, engine: Engine, cache: RuntimeCache | None) -> None:
        self.trt = trt
        self.engine = engine
        self.cache = cache
        self.addresses: dict[str, int] = {}
        if trt.__name__ == "tensorrt_rtx":
            self.is_stream_capturable = lambda stream: trt.capturable

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def execute_async_v3(self, stream: int) -> bool:
        cuda: SimulatedCuda = self.trt.cuda
        self.trt.journal.plain_runs += cuda.capturing is None
        if self.cache is not None:
            self.cache.content += b"kernel "
        addresses = dict(self.addresses)  # a captured graph keeps those of the moment
        cuda.enqueue(lambda: self._compute(addresses))
        return True

    def _compute(self, addresses: dict[str, int]) -> None:
        self.trt.cuda.clock_ms += 1e-3

        def memory(name: str) -> np.ndarray:
            shape = self.engine.tensors[name].shape
            dtype = np.dtype(_NUMPY[self.engine.get_tensor_dtype(name).name])
            size = int(np.prod(shape)) * dtype.itemsize
            content = (ctypes.c_uint8 * size).from_address(addresses[name])
            return np.ctypeslib.as_array(content).view(dtype).reshape(shape)

        feeds = {name: memory(name).copy() for name in self.engine.inputs}
        outputs = [name for name in self.engine.tensors if name not in self.engine.inputs]
        for name, value in zip(outputs, self.engine.session.run(outputs, feeds), strict=True):
            np.copyto(memory(name), value)

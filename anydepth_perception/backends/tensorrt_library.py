"""TensorRT 8.6 to 10 and TensorRT-RTX as one library: every difference between them is in this file."""

from __future__ import annotations

import importlib
import re
import threading
from typing import Any

from anydepth_perception.backends.base import BackendError

MODULES = ("tensorrt_rtx", "tensorrt")
"""TensorRT-RTX comes from the package index, TensorRT from JetPack or NVIDIA's repository; the first found is taken."""

MINIMUM_VERSION = (8, 6)
"""Of TensorRT: the first in which tensors have names throughout and images are uint8."""

_KEPT_ERRORS = 8

_DTYPES = {
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "HALF": "float16",
    "FLOAT": "float32",
    "BOOL": "bool",
}


class TensorRtLibrary:
    """The module with its differences evened out; `module` is what all releases have in common."""

    def __init__(self, module: Any) -> None:
        """Takes an imported module.

        Raises:
            BackendError: its version is too old.
        """
        self.module = module
        self.is_rtx = module.__name__.endswith("_rtx")
        self.name = "TensorRT-RTX" if self.is_rtx else "TensorRT"
        self.version = str(module.__version__)
        numbers = tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
        if not self.is_rtx and numbers < MINIMUM_VERSION:
            needed = ".".join(map(str, MINIMUM_VERSION))
            raise BackendError(f"TensorRT {self.version} is too old, {needed} or newer is needed")
        self.logger = _create_logger(module)

    @property
    def is_strongly_typed(self) -> bool:
        """Whether every layer computes in the types of the graph: TensorRT-RTX, and TensorRT from 10 on."""
        return "STRONGLY_TYPED" in self.module.NetworkDefinitionCreationFlag.__members__

    def create_network(self, builder: Any) -> Any:
        """An empty network; a release in which a flag is always on may no longer name it."""
        flags = self.module.NetworkDefinitionCreationFlag.__members__
        wanted = ("EXPLICIT_BATCH", "STRONGLY_TYPED")
        return builder.create_network(sum(1 << int(flags[name]) for name in wanted if name in flags))

    def aim_at(self, config: Any, compute_capability: str) -> None:
        """Builds for this GPU, as `SM86`, which need not be here.

        Raises:
            BackendError: the library cannot do that, or does not know the GPU.
        """
        if not hasattr(self.module, "ComputeCapability"):
            raise BackendError(f"{self.name} {self.version} builds for the GPU of this machine only, not for others")
        self.check_gpu(compute_capability)
        config.num_compute_capabilities = 1
        config.set_compute_capability(self.module.ComputeCapability.__members__[compute_capability], 0)

    def check_gpu(self, compute_capability: str) -> None:
        """Refuses a GPU that the library cannot build for; only TensorRT-RTX tells which it can.

        Raises:
            BackendError: names those it can.
        """
        if not hasattr(self.module, "ComputeCapability"):
            return
        known = [name for name in self.module.ComputeCapability.__members__ if name.startswith("SM")]
        if compute_capability not in known:
            raise BackendError(
                f"compute capability {compute_capability!r} is unknown to {self.name} {self.version}, "
                f"accepted are {', '.join(known)}"
            )

    def set_float32(self, config: Any) -> None:
        """Computes float32 in full; by itself TensorRT rounds factors to TF32, which moves logits by hundredths."""
        config.clear_flag(self.module.BuilderFlag.TF32)

    def allow_int8(self, config: Any) -> None:
        """Takes Q/DQ pairs at their word; strongly typed networks do so anyhow."""
        if not self.is_strongly_typed:
            config.set_flag(self.module.BuilderFlag.INT8)

    def allow_float16(self, config: Any, network: Any, exact_outputs: set[str]) -> None:
        """For a network that is not strongly typed: float16 wherever that is faster, but for `float32_layers`."""
        trt = self.module
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        for layer in float32_layers(trt, network, exact_outputs):
            layer.precision = trt.DataType.FLOAT
            for index in range(layer.num_outputs):
                if layer.get_output(index).dtype == trt.DataType.FLOAT:
                    layer.set_output_type(index, trt.DataType.FLOAT)

    @property
    def times_kernels(self) -> bool:
        """Whether building measures kernels, which a timing cache spares; TensorRT-RTX compiles them on loading."""
        return not self.is_rtx

    def open_timing_cache(self, config: Any, content: bytes) -> Any:
        """Measurements of earlier builds, which this one adds to; what the library does not accept, it measures anew.

        The caller has to keep it until the engine is built.
        """
        cache = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    def create_runtime_cache(self, engine: Any, content: bytes) -> Any:
        """TensorRT-RTX's cache of compiled kernels, which all engines can share; None for TensorRT."""
        if not self.is_rtx:
            return None
        cache = engine.create_runtime_config().create_runtime_cache()
        if content and not cache.deserialize(content):
            cache.reset()
        return cache

    def create_context(self, engine: Any, runtime_cache: Any) -> Any:
        """What runs an engine, None where there is no memory for it."""
        if runtime_cache is None:
            return engine.create_execution_context()
        config = engine.create_runtime_config()
        config.set_runtime_cache(runtime_cache)
        return engine.create_execution_context(config)

    def may_capture(self, context: Any, stream: int) -> bool:
        """Whether a run can become a CUDA graph, as far as the library says beforehand."""
        asked = getattr(context, "is_stream_capturable", None)
        return asked is None or bool(asked(stream))

    def parser_error(self, error: Any, node_names: list[str]) -> str:
        """What the parser objects to; `node_names` are the graph's nodes in order. 8.6 gives only their indices."""
        where = ""
        if hasattr(error, "node_operator") and error.node_name():
            where = f"node {error.node_name()!r} ({error.node_operator()}): "
        elif 0 <= error.node() < len(node_names):
            where = f"node {node_names[error.node()]}: "
        return where + one_line(error.desc())

    def dtype(self, value: Any) -> str | None:
        """A tensor's type in numpy's words, None where no buffer has it."""
        return _DTYPES.get(value.name)

    def reason(self) -> str:
        """The errors that the library has logged since the last call, in one line."""
        return self.logger.take()


def import_tensorrt(compute_capability: str | None = None) -> TensorRtLibrary:
    """TensorRT-RTX, else TensorRT: the first that is installed and can build for the GPU, where one is named.

    Raises:
        BackendError: there is none; says what is wrong with each.
    """
    reasons = []
    for name in MODULES:
        try:
            library = TensorRtLibrary(importlib.import_module(name))
            if compute_capability is not None:
                library.check_gpu(compute_capability)
        except (ImportError, BackendError) as error:
            reasons.append(one_line(str(error)))
        else:
            return library
    raise BackendError(f"TensorRT is not usable: {'; '.join(reasons)}")


def float32_layers(trt: Any, network: Any, exact_outputs: set[str]) -> list[Any]:
    """Layers that must not compute in float16: the same that `bundle.float16` leaves in float32.

    They select or sample by values that float16 would round together, or lie between the last convolution or matrix
    product and one of `exact_outputs`.
    """
    kinds = trt.LayerType.__members__
    selecting = {kinds[name] for name in ("GATHER", "GRID_SAMPLE", "FILL", "REDUCE", "TOPK") if name in kinds}
    products = {kinds[name] for name in ("CONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED") if name in kinds}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    writers = {layer.get_output(i).name: index for index, layer in enumerate(layers) for i in range(layer.num_outputs)}
    found = {index for index, layer in enumerate(layers) if layer.type in selecting}
    outputs = (network.get_output(index).name for index in range(network.num_outputs))
    names = [name for name in outputs if name in exact_outputs]
    seen: set[int] = set()
    while names:
        index = writers.get(names.pop())
        if index is None or index in seen or layers[index].type in products:
            continue
        seen.add(index)
        sources = (layers[index].get_input(i) for i in range(layers[index].num_inputs))
        names += [source.name for source in sources if source is not None]
    chosen = sorted(found | seen)
    return [layers[index] for index in chosen if layers[index].get_output(0).dtype == trt.DataType.FLOAT]


def one_line(text: str) -> str:
    """A message of several lines in one, without the line on the driver that is added to all where there is none."""
    return ", ".join(line.strip() for line in text.splitlines() if line.strip() and "catchCudaError" not in line)


def _create_logger(trt: Any) -> Any:
    """A logger that keeps errors instead of printing them; one for all, since the library keeps the first."""

    class CollectingLogger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []
            self._lock = threading.Lock()

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                with self._lock:
                    self._errors = [*self._errors, one_line(message)][-_KEPT_ERRORS:]

        def take(self) -> str:
            with self._lock:
                errors, self._errors = self._errors, []
            return "; ".join(error for error in errors if error) or "no reason was given"

    return CollectingLogger()

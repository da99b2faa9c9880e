"""Builds TensorRT engines from ONNX graphs, with TensorRT-RTX or TensorRT, whichever is installed."""

from __future__ import annotations

from typing import Any

import onnx

from anydepth_perception.backends.base import BackendError


def import_tensorrt() -> Any:
    """The module `tensorrt_rtx`, else `tensorrt`, which JetPack brings; both have the same interface.

    Raises:
        BackendError: neither can be imported.
    """
    try:
        import tensorrt_rtx as tensorrt
    except ImportError:
        try:
            import tensorrt
        except ImportError as error:
            raise BackendError(f"neither tensorrt_rtx nor tensorrt can be imported: {error}") from error
    return tensorrt


def build_engine(model: onnx.ModelProto, compute_capability: str | None = None) -> bytes:
    """Builds a serialised engine in which every layer has the precision that the graph gives it.

    Args:
        model: a segment or a composed graph of static shapes; its types are kept (strongly typed network).
        compute_capability: the GPU to build for, as `SM86`, on a machine that need not have one; only TensorRT-RTX
            can do that. None builds for what the library takes by default: the GPU that is here, or with
            TensorRT-RTX every one it supports from Ampere on.

    Raises:
        BackendError: TensorRT is missing or too old, or refuses the graph; names the nodes that it refuses.
    """
    trt = import_tensorrt()
    logger = _collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        refused = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        raise BackendError(f"TensorRT cannot parse {model.graph.name!r}: {'; '.join(refused) or logger.text()}")
    config = builder.create_builder_config()
    if compute_capability is not None:
        _aim_at(trt, config, compute_capability)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(f"TensorRT cannot build {model.graph.name!r}: {logger.text()}")
    return bytes(engine)


def _network_flags(trt: Any) -> int:
    """Explicit batch and strong types; a release in which one of them is always on may no longer name it."""
    flags = trt.NetworkDefinitionCreationFlag.__members__
    if "STRONGLY_TYPED" not in flags:
        raise BackendError(f"TensorRT {trt.__version__} has no strongly typed networks, 10 or newer is needed")
    return sum(1 << int(flags[name]) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if name in flags)


def _aim_at(trt: Any, config: Any, compute_capability: str) -> None:
    accepted = getattr(trt, "ComputeCapability", None)
    if accepted is None:
        raise BackendError(f"TensorRT {trt.__version__} builds for the GPU of this machine only, not for others")
    known = {name: value for name, value in accepted.__members__.items() if name.startswith("SM")}
    if compute_capability not in known:
        raise BackendError(f"compute capability {compute_capability!r} is unknown, accepted are {', '.join(known)}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[compute_capability], 0)


def _describe(error: Any) -> str:
    return f"node {error.node_name()!r} ({error.node_operator()}): {_reason(error.desc())}"


def _reason(text: str) -> str:
    # On a machine without a driver, that is added to every message; it explains none.
    return ", ".join(line.strip() for line in text.splitlines() if line.strip() and "catchCudaError" not in line)


def _collecting_logger(trt: Any) -> Any:
    """A logger that keeps errors instead of printing them: they say why a build failed."""

    class CollectingLogger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(_reason(message))

        def text(self) -> str:
            return "; ".join(error for error in self.errors if error) or "no reason was given"

    return CollectingLogger()

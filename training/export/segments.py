"""Segments of a detector as ONNX graphs that can be concatenated, and what each costs."""

from __future__ import annotations

import contextlib
import io
import warnings

import onnx
import onnxslim
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.families import segment_modules
from training.models.detector import AnyDepthDetector

OPSET = 17
"""Reads everywhere from ONNX Runtime 1.12 and TensorRT 8.5 on."""


def export_segment(
    module: nn.Module, name: str, inputs: dict[str, Tensor], outputs: list[str]
) -> tuple[onnx.ModelProto, dict[str, Tensor], float]:
    """One segment as ONNX, what it puts out for `inputs`, and its GFLOPs (2 x multiply-adds).

    Boundary tensors keep their names; everything inside is prefixed with the segment's name, so that
    segments can be concatenated.
    """
    module.eval()
    arguments = tuple(inputs.values())
    # Fused attention kernels are not counted everywhere; the plain one is.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        values = module(*arguments)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            arguments,
            buffer,  # type: ignore[arg-type]  # the declaration forgets file objects
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamo=False,
        )
    model = onnxslim.slim(onnx.load_from_string(buffer.getvalue()))
    _prefix_names(model.graph, f"{name}/", keep={*inputs, *outputs})
    model.graph.name = name
    values = values if isinstance(values, tuple) else (values,)
    return model, dict(zip(outputs, values, strict=True)), counter.get_total_flops() / 1e9


def _prefix_names(graph: onnx.GraphProto, prefix: str, keep: set[str]) -> None:
    def rename(name: str) -> str:
        return name if not name or name in keep else prefix + name.lstrip("/")

    for node in graph.node:
        node.name = rename(node.name)
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    del graph.value_info[:]


def export_segments(
    model: AnyDepthDetector, image_size: tuple[int, int]
) -> tuple[dict[str, onnx.ModelProto], dict[str, float]]:
    """Every segment of a detector at `image_size` (height, width), in execution order, and the GFLOPs of each."""
    models: dict[str, onnx.ModelProto] = {}
    gflops: dict[str, float] = {}
    maps: dict[str, Tensor] = {"images": torch.zeros(1, *image_size, 3, dtype=torch.uint8)}
    for segment in segment_modules(model, image_size):
        models[segment.name], values, gflops[segment.name] = export_segment(
            segment.module, segment.name, {source: maps[source] for source in segment.inputs}, list(segment.outputs)
        )
        maps.update(values)
    return models, gflops

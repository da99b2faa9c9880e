"""A tiny valid bundle made by hand: every stage on both paths, a stem and a head, a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from spaces import STAGES

from anydepth_perception.bundle import Bundle, write_bundle

CLASS_NAMES = ("person", "crate", "cone")
SIZE = 64
CHANNELS = 8
STRIDES = {"stem": 4, "p2": 4, "p3": 8, "p4": 16, "p5": 32, "fpn_p4": 16, "fpn_p3": 8, "pan_p4": 16, "pan_p5": 32}
STRIDES |= {f"layer.{number}": 32 for number in (1, 2, 3)}
READS = {
    "p2": ("stem",),
    "p3": ("p2",),
    "p4": ("p3",),
    "p5": ("p4",),
    "fpn_p4": ("p5", "p4"),
    "fpn_p3": ("fpn_p4", "p3"),
    "pan_p4": ("fpn_p3", "fpn_p4"),
    "pan_p5": ("pan_p4", "p5"),
}
HEAD_READS = ("fpn_p3", "pan_p4", "pan_p5")
FULL_AP, BASE_AP = 0.5, 0.4


class SegmentBuilder:
    """Collects the nodes and weights of one segment, all inner names prefixed with the segment's name."""

    def __init__(self, name: str, size: int, rng: np.random.Generator) -> None:
        self.name = name
        self.size = size
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def weight(self, label: str, value: np.ndarray) -> str:
        """Adds an initialiser and returns its name."""
        name = f"{self.name}/{label}"
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], label: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node and returns the name of its output."""
        output = output or f"{self.name}/{label}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=f"{self.name}/{label}_node", **attributes))
        return output

    def conv(self, source: str, label: str, in_channels: int, kernel: int, stride: int = 1) -> str:
        """Adds a convolution with bounded output and returns the name of its output."""
        shape = (CHANNELS, in_channels, kernel, kernel)
        scale = 1.0 / np.sqrt(in_channels * kernel * kernel)
        weight = self.weight(f"{label}_weight", (self._rng.normal(size=shape) * scale).astype(np.float32))
        pads = [kernel // 2] * 4
        return self.node("Conv", [source, weight], label, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def model(self, inputs: dict[str, tuple[int, list[int]]], outputs: dict[str, list[int]]) -> onnx.ModelProto:
        """The segment with typed boundary tensors; `inputs` gives element type and shape, outputs are float32."""
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def make_tiny_bundle(path: Path, size: int = SIZE, seed: int = 0) -> Bundle:
    """Writes a tiny bundle for square inputs of `size` pixels (a multiple of 32) into the folder `path`."""
    return write_bundle(path, tiny_manifest(size), tiny_segments(size, seed), {"MODEL_CARD.md": b"# Tiny\n"})


def tiny_manifest(size: int = SIZE) -> dict[str, Any]:
    """The manifest of the tiny bundle, without sums and tensors."""
    names = ["stem", "head"] + [f"{stage}.{path}" for stage in STAGES for path in ("essential", "full")]
    return {
        "name": "tiny",
        "model": "tiny",
        "family": "yolo",
        "input": {"name": "images", "height": size, "width": size, "resize": "letterbox", "pad_value": 114},
        "outputs": {"boxes": "boxes", "logits": "logits"},
        "class_names": list(CLASS_NAMES),
        "num_exits": 0,
        "pipeline": ["stem", *STAGES, "head"],
        "stages": {stage: {"essential": f"{stage}.essential", "full": f"{stage}.full"} for stage in STAGES},
        "exits": {},
        "segments": {name: {"gflops": 0.002 if name.endswith(".full") else 0.001} for name in names},
        "postprocess": {"nms": True, "iou_threshold": 0.7},
        "accuracy": {
            "dataset": "none",
            "metric": "AP, invented",
            "configurations": {
                "FFFF.FFFF": {"AP": FULL_AP, "measured": False},
                "EEEE.EEEE": {"AP": BASE_AP, "measured": False},
            },
        },
        "provenance": {"recipe": "random weights for tests"},
    }


def tiny_segments(size: int = SIZE, seed: int = 0) -> dict[str, onnx.ModelProto]:
    """ONNX models of all segments of the tiny bundle, by name."""
    rng = np.random.default_rng(seed)
    segments = {"stem": _stem(SegmentBuilder("stem", size, rng)), "head": _head(SegmentBuilder("head", size, rng))}
    for stage in STAGES:
        for path in ("essential", "full"):
            segments[f"{stage}.{path}"] = _stage(SegmentBuilder(f"{stage}.{path}", size, rng), stage, path == "full")
    return segments


def tiny_parts_with_exits() -> tuple[dict[str, Any], dict[str, onnx.ModelProto]]:
    """Manifest and segments of a tiny detector of DETR's kind, whose second exit lies behind one more layer."""
    manifest, segments = tiny_manifest(), tiny_segments()
    head = segments.pop("head")
    del manifest["segments"]["head"]
    deeper = onnx.ModelProto()
    deeper.CopyFrom(head)
    for node in deeper.graph.node:
        node.input[:] = ["refined" if name == "pan_p5" else name for name in node.input]
    deeper.graph.input[2].name = "refined"
    level = helper.make_tensor_value_info("pan_p5", 1, [1, 8, 2, 2])
    refined = helper.make_tensor_value_info("refined", 1, [1, 8, 2, 2])
    layer = helper.make_graph([helper.make_node("Relu", ["pan_p5"], ["refined"])], "decoder.2", [level], [refined])
    decoder = helper.make_model(layer, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    segments.update({"exit.1": head, "exit.2": deeper, "decoder.2": decoder})
    manifest["segments"].update({name: {"gflops": 0.001} for name in ("exit.1", "exit.2", "decoder.2")})
    manifest["pipeline"][-1] = "exits"
    manifest["exits"] = {"1": ["exit.1"], "2": ["decoder.2", "exit.2"]}
    manifest["num_exits"] = 2
    manifest["family"] = "detr"
    manifest["accuracy"]["configurations"] = {}
    return manifest, segments


def tiny_parts_of_four_stages(size: int = SIZE) -> tuple[dict[str, Any], dict[str, onnx.ModelProto]]:
    """Manifest and segments of a backbone whose first stage has nothing to skip, and a decoder with three exits.

    It has no neck, a family of its own, and reports one class per row without NMS, which no other bundle does.
    """
    rng = np.random.default_rng(3)
    stages, numbers = STAGES[:4], (1, 2, 3)
    segments = {"stem": _stem(SegmentBuilder("stem", size, rng))}
    for stage in stages:
        for path in ("full",) if stage == "p2" else ("essential", "full"):
            segments[f"{stage}.{path}"] = _stage(SegmentBuilder(f"{stage}.{path}", size, rng), stage, path == "full")
    for number in numbers:
        builder, source = SegmentBuilder(f"layer.{number}", size, rng), f"layer.{number - 1}" if number > 1 else "p5"
        conv = builder.conv(source, "conv", CHANNELS, 3)
        builder.node("Tanh", [conv], "act", output=builder.name)
        shape = _shape(builder.name, size)
        segments[builder.name] = builder.model({source: (TensorProto.FLOAT, shape)}, {builder.name: shape})
        segments[f"exit.{number}"] = _head(SegmentBuilder(f"exit.{number}", size, rng), (builder.name, "p4", "p3"))
    manifest = tiny_manifest(size)
    manifest |= {
        "name": "four",
        "family": "toy",
        "outputs": {"boxes": "boxes", "logits": "logits", "ordered": True},
        "postprocess": {"nms": False, "iou_threshold": 0.7, "multi_label": False},
        "num_exits": len(numbers),
        "pipeline": ["stem", *stages, "exits"],
        "stages": {
            stage: {"essential": f"{stage}.{'full' if stage == 'p2' else 'essential'}", "full": f"{stage}.full"}
            for stage in stages
        },
        "exits": {
            str(last): [*(f"layer.{number}" for number in numbers[:last]), f"exit.{last}"] for last in numbers
        },
        "segments": {name: {"gflops": 0.002 if name.endswith(".full") else 0.001} for name in segments},
        "accuracy": {
            "dataset": "none",
            "metric": "AP, invented",
            "configurations": {
                "FFFF.d3": {"AP": FULL_AP, "measured": False},
                "FEEE.d2": {"AP": BASE_AP, "measured": False},
            },
        },
    }
    return manifest, segments


def _shape(tensor: str, size: int) -> list[int]:
    return [1, CHANNELS, size // STRIDES[tensor], size // STRIDES[tensor]]


def _stem(builder: SegmentBuilder) -> onnx.ModelProto:
    cast = builder.node("Cast", ["images"], "cast", to=TensorProto.FLOAT)
    scale = builder.weight("scale", np.array(1 / 255, np.float32))
    scaled = builder.node("Mul", [cast, scale], "scaled")
    planes = builder.node("Transpose", [scaled], "planes", perm=[0, 3, 1, 2])
    conv = builder.conv(planes, "conv", 3, 5, stride=4)
    builder.node("Relu", [conv], "act", output="stem")
    images = (TensorProto.UINT8, [1, builder.size, builder.size, 3])
    return builder.model({"images": images}, {"stem": _shape("stem", builder.size)})


def _stage(builder: SegmentBuilder, stage: str, full: bool) -> onnx.ModelProto:
    parts = []
    for source in READS[stage]:
        ratio = STRIDES[stage] / STRIDES[source]
        if ratio < 1:
            empty = builder.weight(f"{source}_roi", np.zeros(0, np.float32))
            scales = builder.weight(f"{source}_scales", np.array([1, 1, 1 / ratio, 1 / ratio], np.float32))
            parts.append(builder.node("Resize", [source, empty, scales], f"{source}_up", mode="nearest"))
        else:
            parts.append(builder.conv(source, f"{source}_in", CHANNELS, 3, stride=int(ratio)))
    joined = builder.node("Sum", parts, "sum")
    if full:
        residual = builder.conv(joined, "refine_1", CHANNELS, 3)
        residual = builder.conv(builder.node("Relu", [residual], "refine_act"), "refine_2", CHANNELS, 3)
        joined = builder.node("Add", [joined, residual], "refined")
    builder.node("Tanh", [joined], "act", output=stage)
    inputs = {source: (TensorProto.FLOAT, _shape(source, builder.size)) for source in READS[stage]}
    return builder.model(inputs, {stage: _shape(stage, builder.size)})


def _head(builder: SegmentBuilder, reads: tuple[str, ...] = HEAD_READS) -> onnx.ModelProto:
    """One prediction per cell of each level: a box around the cell's centre that varies a little, and class logits."""
    size, count = builder.size, len(CLASS_NAMES)
    boxes, logits = [], []
    for level in reads:
        cells = size // STRIDES[level]
        features = builder.node("Transpose", [level], f"{level}_cells", perm=[0, 2, 3, 1])
        shape = builder.weight(f"{level}_shape", np.array([1, cells * cells, CHANNELS], np.int64))
        rows = builder.node("Reshape", [features, shape], f"{level}_rows")
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        x, y = (grid.reshape(1, -1, 1) for grid in np.meshgrid(centres, centres))
        anchor = np.concatenate([x - 1 / cells, y - 1 / cells, x + 1 / cells, y + 1 / cells], 2).astype(np.float32)
        shift = builder.weight(f"{level}_shift", (np.ones((CHANNELS, 4)) * 0.1 / cells / CHANNELS).astype(np.float32))
        moved = builder.node("MatMul", [rows, shift], f"{level}_moved")
        boxes.append(builder.node("Add", [moved, builder.weight(f"{level}_anchor", anchor)], f"{level}_boxes"))
        classes = np.random.default_rng(7).normal(size=(CHANNELS, count)).astype(np.float32) * 3
        scored = builder.node("MatMul", [rows, builder.weight(f"{level}_classes", classes)], f"{level}_scored")
        # Most cells see nothing, as those of a trained detector.
        rarity = builder.weight(f"{level}_rarity", np.full(count, -4.0, np.float32))
        logits.append(builder.node("Add", [scored, rarity], f"{level}_logits"))
    builder.node("Concat", boxes, "all_boxes", output="boxes", axis=1)
    builder.node("Concat", logits, "all_logits", output="logits", axis=1)
    total = sum((size // STRIDES[level]) ** 2 for level in reads)
    inputs = {level: (TensorProto.FLOAT, _shape(level, size)) for level in reads}
    return builder.model(inputs, {"boxes": [1, total, 4], "logits": [1, total, count]})

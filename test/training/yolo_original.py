"""The keys and shapes of an original YOLOv12 turbo checkpoint, written down layer by layer from its published YAML."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Widths:
    """Channels of the YAML's 64, 128, 256, 512 and 1024 at a size, and what else depends on the size."""

    c64: int
    c128: int
    c256: int
    c512: int
    c1024: int
    two: int
    four: int
    c3k: bool
    mlp_ratio: float
    gamma: bool


WIDTHS = {
    "t": Widths(16, 32, 64, 128, 128, two=2, four=4, c3k=True, mlp_ratio=2.0, gamma=False),
    "n": Widths(16, 32, 64, 128, 256, two=1, four=2, c3k=False, mlp_ratio=2.0, gamma=False),
    "l": Widths(64, 128, 256, 512, 512, two=2, four=4, c3k=True, mlp_ratio=1.5, gamma=True),
}


def conv(key: str, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> Shapes:
    shapes: Shapes = {f"{key}.conv.weight": (outputs, inputs // groups, kernel, kernel)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{key}.bn.{name}"] = (outputs,)
    return shapes | {f"{key}.bn.num_batches_tracked": ()}


def bottleneck(key: str, channels: int, hidden: int) -> Shapes:
    return conv(f"{key}.cv1", channels, hidden, 3) | conv(f"{key}.cv2", hidden, channels, 3)


def c3k(key: str, channels: int) -> Shapes:
    half = channels // 2
    shapes = conv(f"{key}.cv1", channels, half) | conv(f"{key}.cv2", channels, half)
    shapes |= conv(f"{key}.cv3", 2 * half, channels)
    return shapes | bottleneck(f"{key}.m.0", half, half) | bottleneck(f"{key}.m.1", half, half)


def c3k2(key: str, inputs: int, outputs: int, hidden: int, blocks: int, *, deep: bool) -> Shapes:
    shapes = conv(f"{key}.cv1", inputs, 2 * hidden) | conv(f"{key}.cv2", (2 + blocks) * hidden, outputs)
    for i in range(blocks):
        shapes |= c3k(f"{key}.m.{i}", hidden) if deep else bottleneck(f"{key}.m.{i}", hidden, hidden // 2)
    return shapes


def attention_block(key: str, channels: int, mlp_ratio: float) -> Shapes:
    shapes = conv(f"{key}.attn.qk", channels, 2 * channels) | conv(f"{key}.attn.v", channels, channels)
    shapes |= conv(f"{key}.attn.proj", channels, channels)
    shapes |= conv(f"{key}.attn.pe", channels, channels, 5, groups=channels)
    hidden = int(channels * mlp_ratio)
    return shapes | conv(f"{key}.mlp.0", channels, hidden) | conv(f"{key}.mlp.1", hidden, channels)


def a2c2f(key: str, inputs: int, outputs: int, blocks: int, attention: Widths | None = None) -> Shapes:
    hidden = outputs // 2
    shapes: Shapes = {f"{key}.gamma": (outputs,)} if attention and attention.gamma else {}
    shapes |= conv(f"{key}.cv1", inputs, hidden) | conv(f"{key}.cv2", (1 + blocks) * hidden, outputs)
    for i in range(blocks):
        if attention is None:
            shapes |= c3k(f"{key}.m.{i}", hidden)
        else:
            shapes |= attention_block(f"{key}.m.{i}.0", hidden, attention.mlp_ratio)
            shapes |= attention_block(f"{key}.m.{i}.1", hidden, attention.mlp_ratio)
    return shapes


def detect(key: str, inputs: tuple[int, int, int], num_classes: int) -> Shapes:
    box, cls = max(16, inputs[0] // 4, 64), max(inputs[0], min(num_classes, 100))
    shapes: Shapes = {f"{key}.dfl.conv.weight": (1, 16, 1, 1)}
    for i, channels in enumerate(inputs):
        shapes |= conv(f"{key}.cv2.{i}.0", channels, box, 3) | conv(f"{key}.cv2.{i}.1", box, box, 3)
        shapes |= {f"{key}.cv2.{i}.2.weight": (64, box, 1, 1), f"{key}.cv2.{i}.2.bias": (64,)}
        shapes |= conv(f"{key}.cv3.{i}.0.0", channels, channels, 3, groups=channels)
        shapes |= conv(f"{key}.cv3.{i}.0.1", channels, cls)
        shapes |= conv(f"{key}.cv3.{i}.1.0", cls, cls, 3, groups=cls) | conv(f"{key}.cv3.{i}.1.1", cls, cls)
        shapes |= {f"{key}.cv3.{i}.2.weight": (num_classes, cls, 1, 1), f"{key}.cv3.{i}.2.bias": (num_classes,)}
    return shapes


def original_shapes(size: str, num_classes: int) -> Shapes:
    """The shape of every tensor of the original's state dict (for `t`, which it lacks: as it would be)."""
    w = WIDTHS[size]
    return (
        conv("model.0", 3, w.c64, 3)
        | conv("model.1", w.c64, w.c128, 3, groups=2)
        | c3k2("model.2", w.c128, w.c256, w.c256 // 4, w.two, deep=w.c3k)
        | conv("model.3", w.c256, w.c256, 3, groups=4)
        | c3k2("model.4", w.c256, w.c512, w.c512 // 4, w.two, deep=w.c3k)
        | conv("model.5", w.c512, w.c512, 3)
        | a2c2f("model.6", w.c512, w.c512, w.four, w)
        | conv("model.7", w.c512, w.c1024, 3)
        | a2c2f("model.8", w.c1024, w.c1024, w.four, w)
        | a2c2f("model.11", w.c1024 + w.c512, w.c512, w.two)
        | a2c2f("model.14", w.c512 + w.c512, w.c256, w.two)
        | conv("model.15", w.c256, w.c256, 3)
        | a2c2f("model.17", w.c256 + w.c512, w.c512, w.two)
        | conv("model.18", w.c512, w.c512, 3)
        | c3k2("model.20", w.c512 + w.c1024, w.c1024, w.c1024 // 2, w.two, deep=True)
        | detect("model.21", (w.c256, w.c512, w.c1024), num_classes)
    )


def original_state(size: str, num_classes: int) -> dict[str, Tensor]:
    """A state dict of the original's layout, every tensor random but the bins and the batch counts."""
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.rand(shape, generator=generator) for key, shape in original_shapes(size, num_classes).items()}
    state["model.21.dfl.conv.weight"] = torch.arange(16.0).reshape(1, 16, 1, 1)
    return {key: torch.tensor(7) if key.endswith("num_batches_tracked") else value for key, value in state.items()}

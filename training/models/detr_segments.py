"""The segments of AnyDepth-DETR: those of its feature maps, query selection, decoder layers and their heads."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from anydepth_perception.depth.space import FULL
from training.models.decoder import Decoder
from training.models.detr import HEAD_INPUTS, AnyDepthDetr, xyxy_pixels
from training.models.folding import fold
from training.models.query_selection import inverse_sigmoid
from training.models.segments import SegmentModule, trunk_segments


class Selection(nn.Module):
    """Level projections and query selection: memory [1, N, 256], queries [1, Q, 256], boxes [1, Q, 4] cxcywh."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        folded = fold(decoder, FULL)
        assert isinstance(folded, Decoder)
        self.decoder = folded

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Selects from P3, P4, P5."""
        memory, sizes = self.decoder.memory(features)
        selected = self.decoder.selection(memory, sizes)
        return memory, selected.content, selected.boxes


class Layer(nn.Module):
    """One decoder layer: the queries and boxes after it."""

    def __init__(self, decoder: Decoder, index: int, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.decoder = decoder
        self.index = index
        self.sizes = sizes

    def forward(self, x: Tensor, boxes: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Refines queries [1, Q, 256] and boxes [1, Q, 4] cxcywh in [0, 1]."""
        x, offset = self.decoder.step(self.index, x, boxes, memory, self.sizes)
        return x, (offset + inverse_sigmoid(boxes)).sigmoid()


class Exit(nn.Module):
    """The outputs of a decoder exit: boxes [1, Q, 4] xyxy in [0, 1] of the input, logits [1, Q, C]."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Reads the class head."""
        return xyxy_pixels(boxes, (1, 1)), self.score(x)


def detr_segments(model: AnyDepthDetr, image_size: tuple[int, int]) -> Iterator[SegmentModule]:
    """Every segment in execution order, for images of `image_size` (height, width)."""
    yield from trunk_segments(model)
    height, width = image_size
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (8, 16, 32)]
    decoder = model.decoder
    yield SegmentModule("selection", Selection(decoder), HEAD_INPUTS, ("memory", "queries.0", "boxes.0"))
    for i in range(1, len(decoder.layers) + 1):
        before, after = (f"queries.{i - 1}", f"boxes.{i - 1}"), (f"queries.{i}", f"boxes.{i}")
        yield SegmentModule(f"decoder.{i}", Layer(decoder, i - 1, sizes), (*before, "memory"), after)
        yield SegmentModule(f"head.{i}", Exit(decoder.score[i - 1]), after, ("boxes", "logits"))

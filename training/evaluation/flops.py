"""Counts parameters and floating-point operations of a detector, segment by segment and path by path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anydepth_perception.depth.config import ESSENTIAL, FULL, STAGES, DepthConfig
from training.models import detr, yolo
from training.models.batchnorm import SwitchableBatchNorm2d
from training.models.build import build_model
from training.models.decoder import Decoder
from training.models.detector import AnyDepthDetector
from training.models.detr import AnyDepthDetr
from training.models.fine import FineSettings
from training.models.query_selection import QuerySelection
from training.models.stage import Aggregator

ATTENTION_OPERATORS = frozenset({"aten.bmm", "aten.baddbmm"})
"""What the plain attention kernel is made of. Linear layers are `mm` and `addmm`, convolutions `convolution`."""


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, two a multiply-add; nothing else (norms, activations, sampling) counts.

    Attributes:
        layers: of convolutions and linear layers.
        attention: of attention's two products, queries by keys and weights by values.
    """

    layers: int = 0
    attention: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.layers + other.layers, self.attention + other.attention)

    @property
    def total(self) -> int:
        """Of both kinds."""
        return self.layers + self.attention


@dataclass(frozen=True)
class Segment:
    """One piece of a detector, in the order of execution.

    Attributes:
        name: `stem`, a stage of `STAGES`, `aifi`, `selection` (level projections and query selection), `decoder.1` to
            `decoder.L` (a layer and its box head), `head` (YOLO's; DETR's class heads, of which one is read).
            Two more have parameters only: `query_position`, which every layer calls and whose work is counted there,
            and `denoising`, which only training uses.
        params: elements of all parameters, trained or frozen.
        refinement_params: those of blocks that only the full path runs.
        any_depth_params: those that any depth adds: the essential path's own batch norms and aggregator.
        num_blocks: N of a stage, else None.
        num_essential: k of a stage, N where it has nothing to skip.
        flops: per path, of one image. A segment with one path, and a stage with nothing to skip, has `full` alone.
        published_extra: what the published order of work adds: a box for every cell before the best are selected.
        layer: the number of a decoder layer; it runs at that exit and the later ones.
    """

    name: str
    params: int
    flops: Mapping[str, Flops]
    published_extra: Flops = Flops()
    refinement_params: int = 0
    any_depth_params: int = 0
    num_blocks: int | None = None
    num_essential: int | None = None
    layer: int | None = None

    def flops_at(self, config: DepthConfig) -> Flops:
        """What the segment costs at a depth configuration."""
        if self.layer is not None and config.exit is not None and self.layer > config.exit:
            return Flops()
        return self.flops[config.path(self.name) if self.name in STAGES else FULL]


def meta_model(
    name: str, num_classes: int, *, fine: FineSettings | None = FineSettings(), any_depth: bool = True
) -> AnyDepthDetector:
    """`build_model` without memory behind its weights, for counting; in evaluation mode."""
    with torch.device("meta"):
        return build_model(name, num_classes, fine=fine, any_depth=any_depth).eval()


def count(run: Callable[[], Any]) -> tuple[Any, Flops]:
    """What `run` returns, and the operations of all that it calls."""
    # Fused attention kernels hide their products; the plain one consists of counted operators.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = run()
    by_operator = counter.get_flop_counts()["Global"]
    attention = sum(flops for operator, flops in by_operator.items() if str(operator) in ATTENTION_OPERATORS)
    return result, Flops(counter.get_total_flops() - attention, attention)


def count_params(*modules: nn.Module) -> int:
    """Elements of all parameters, trained or frozen."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def count_segments(model: AnyDepthDetector, image_size: tuple[int, int]) -> list[Segment]:
    """Every segment of a detector on the meta device, each run by itself, on each of its paths.

    Args:
        model: as `meta_model` builds it.
        image_size: (height, width) in pixels, each 32 or more.

    Raises:
        ValueError: a smaller image.
    """
    images = torch.empty(1, 3, *image_size, device="meta")
    model.check_images(images)
    segments: list[Segment] = []
    maps: dict[str, Tensor] = {}

    def add(name: str, module: nn.Module, *inputs: Tensor) -> None:
        maps[name], flops = count(lambda: module(*inputs))
        segments.append(Segment(name, count_params(module), {FULL: flops}))

    add("stem", model.stem, images)
    for name in STAGES:
        segment, maps[name] = _count_stage(model, name, [maps[source] for source in model.stage_inputs[name]])
        segments.append(segment)
        if name == "p5" and isinstance(model, AnyDepthDetr):
            add("aifi", model.aifi, maps["p5"])
    if isinstance(model, AnyDepthDetr):
        segments += _count_decoder(model.decoder, [maps[name] for name in detr.HEAD_INPUTS])
    else:
        _, flops = count(lambda: model.head([maps[name] for name in yolo.HEAD_INPUTS]))
        segments.append(Segment("head", count_params(model.head), {FULL: flops}))
    return segments


def flops_at(segments: Iterable[Segment], config: DepthConfig, *, published: bool = False) -> Flops:
    """What a detector of these segments costs at a depth configuration, by our or the published order of work."""
    flops = Flops()
    for segment in segments:
        flops += segment.flops_at(config)
        if published:
            flops += segment.published_extra
    return flops


def _count_stage(model: AnyDepthDetector, name: str, inputs: Sequence[Tensor]) -> tuple[Segment, Tensor]:
    stage = model.stages[name]
    skippable = name in model.skippable_stages
    flops: dict[str, Flops] = {}
    for path in (ESSENTIAL, FULL) if skippable else (FULL,):
        output, flops[path] = count(lambda path=path: stage(*inputs, path=path))
    blocks, num_essential = next(
        (module.blocks, module.num_essential) for module in stage.modules() if hasattr(module, "num_essential")
    )
    if not skippable:
        num_essential = len(blocks)
    segment = Segment(
        name,
        count_params(stage),
        flops,
        refinement_params=count_params(*blocks[num_essential:]),
        any_depth_params=_count_any_depth(stage),
        num_blocks=len(blocks),
        num_essential=num_essential,
    )
    return segment, output


def _count_unselected_boxes(selection: QuerySelection, cells: Tensor, selected: Tensor) -> Flops:
    """The box head on those of `cells` [1, N, C] that are not among the `selected` [1, Q, 4]."""
    return count(lambda: selection.box(cells[:, selected.shape[1] :]))[1]


def _count_any_depth(stage: nn.Module) -> int:
    return sum(
        count_params(module.essential)
        for module in stage.modules()
        if isinstance(module, SwitchableBatchNorm2d | Aggregator) and module.essential is not None
    )


def _count_decoder(decoder: Decoder, features: Sequence[Tensor]) -> list[Segment]:
    (memory, sizes), projections = count(lambda: decoder.memory(features))
    selected, selection = count(lambda: decoder.selection(memory, sizes))
    x, boxes = selected.content, selected.boxes
    segments = [
        Segment(
            "selection",
            count_params(decoder.project, decoder.selection),
            {FULL: projections + selection},
            published_extra=_count_unselected_boxes(decoder.selection, memory, selected.boxes),
        ),
        Segment("query_position", count_params(decoder.query_position), {FULL: Flops()}),
    ]
    for i, (layer, box) in enumerate(zip(decoder.layers, decoder.box, strict=True)):
        (x, boxes), flops = count(lambda i=i, x=x, boxes=boxes: decoder.step(i, x, boxes, memory, sizes))
        segments.append(Segment(f"decoder.{i + 1}", count_params(layer, box), {FULL: flops}, layer=i + 1))
    _, head = count(lambda: decoder.score[0](x))
    segments.append(Segment("head", count_params(decoder.score), {FULL: head}))
    segments.append(Segment("denoising", count_params(decoder.denoising_embedding), {FULL: Flops()}))
    return segments

"""What is counted of AnyDepth-DETR behind its feature maps: query selection and the decoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from torch import Tensor

from anydepth_perception.depth.space import EXITS, ONLY, Step
from training.models.counts import Flops, Part, count, count_params
from training.models.detr import HEAD_INPUTS, AnyDepthDetr
from training.models.query_selection import QuerySelection

CONVENTION = (
    "2 x MAC of convolutions, linear layers and attention products (queries x keys, weights x values); RepVgg "
    "branches un-fused; query selection runs its box head on every cell, as published"
)


def count_decoder(model: AnyDepthDetr, maps: Mapping[str, Tensor]) -> list[Part]:
    """Query selection, every layer, and the class heads, of which one is read; on feature maps of the meta device.

    Two parts have parameters alone: `query_position`, which every layer calls and whose work is counted there, and
    `denoising`, which only training uses.
    """
    decoder = model.decoder
    (memory, sizes), projections = count(lambda: decoder.memory([maps[name] for name in HEAD_INPUTS]))
    selected, selection = count(lambda: decoder.selection(memory, sizes))
    x, boxes = selected.content, selected.boxes
    parts = [
        Part(
            "selection",
            count_params(decoder.project, decoder.selection),
            {Step("selection", ONLY): projections + selection},
            published_extra=_count_unselected_boxes(decoder.selection, memory, selected.boxes),
        ),
        Part("query_position", count_params(decoder.query_position)),
    ]
    exits = [step for step in model.space.steps if step.entry == EXITS]
    for i, (layer, box) in enumerate(zip(decoder.layers, decoder.box, strict=True)):
        (x, boxes), flops = count(functools.partial(decoder.step, i, x, boxes, memory, sizes))
        parts.append(Part(f"decoder.{i + 1}", count_params(layer, box), dict.fromkeys(exits[i:], flops)))
    _, head = count(lambda: decoder.score[0](x))
    parts.append(Part("head", count_params(decoder.score), dict.fromkeys(exits, head)))
    parts.append(Part("denoising", count_params(decoder.denoising_embedding)))
    return parts


def _count_unselected_boxes(selection: QuerySelection, cells: Tensor, selected: Tensor) -> Flops:
    """The box head on those of `cells` [1, N, C] that are not among the `selected` [1, Q, 4]."""
    return count(lambda: selection.box(cells[:, selected.shape[1] :]))[1]

"""Counts parameters and floating-point operations of a detector, part by part and path by path."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from anydepth_perception.depth.space import ONLY, DepthConfig, DepthSpace, Entry, Step
from training.families import build_model, family_of
from training.models.batchnorm import SwitchableBatchNorm2d
from training.models.counts import Flops, Part, count, count_params
from training.models.detector import AnyDepthDetector
from training.models.fine import FineSettings
from training.models.stage import ANY_DEPTH, Aggregator, AnyDepthSettings, SharedPart, shared_part, split_of


def meta_model(
    name: str,
    num_classes: int,
    *,
    fine: FineSettings | None = FineSettings(),
    any_depth: AnyDepthSettings = ANY_DEPTH,
) -> AnyDepthDetector:
    """`build_model` without memory behind its weights, for counting; in evaluation mode."""
    with torch.device("meta"):
        return build_model(name, num_classes, fine=fine, any_depth=any_depth).eval()


def count_parts(model: AnyDepthDetector, image_size: tuple[int, int]) -> list[Part]:
    """Every part of a detector on the meta device, each run by itself, on each of its paths.

    Args:
        model: as `meta_model` builds it.
        image_size: (height, width) in pixels, each 32 or more.

    Raises:
        ValueError: a smaller image.
    """
    images = torch.empty(1, 3, *image_size, device="meta")
    model.check_images(images)
    parts: list[Part] = []
    maps: dict[str, Tensor] = {"images": images}
    for entry in model.space.entries:
        if entry.name in model.map_inputs:
            inputs = [maps[source] for source in model.map_inputs[entry.name]]
            counted = _count_stage if entry.is_stage else _count_entry
            part, maps[entry.name] = counted(model, entry, inputs)
            parts.append(part)
    return [*parts, *family_of(model.name).counting.count_outputs(model, maps)]


def flops_at(parts: Iterable[Part], space: DepthSpace, config: DepthConfig, *, published: bool = False) -> Flops:
    """What a detector of these parts costs at a depth configuration, by our or the published order of work."""
    route = set(space.route(config))
    flops = Flops()
    for part in parts:
        flops = sum((cost for step, cost in part.flops.items() if step in route), flops)
        if published:
            flops += part.published_extra
    return flops


def _count_entry(model: AnyDepthDetector, entry: Entry, inputs: Sequence[Tensor]) -> tuple[Part, Tensor]:
    step = Step(entry.name, ONLY)
    output, flops = count(lambda: model.run(step, inputs))
    return Part(entry.name, count_params(model.get_submodule(entry.name)), {step: flops}), output


def _count_stage(model: AnyDepthDetector, entry: Entry, inputs: Sequence[Tensor]) -> tuple[Part, Tensor]:
    stage = model.stages[entry.name]
    split, part = split_of(stage), shared_part(stage)
    run: Callable[..., Tensor] = stage
    flops: dict[Step, Flops] = {}
    if part is not None and isinstance(stage, SharedPart):
        aligned, flops[Step(f"{entry.name}.{part}", ONLY)] = count(lambda: stage.align(*inputs))
        inputs, run = (inputs[0], aligned), stage.fuse
    for way in entry.ways:
        output, flops[Step(entry.name, way)] = count(functools.partial(run, *inputs, path=way))
    skippable = entry.name in model.space.skippable
    counted = Part(
        entry.name,
        count_params(stage),
        flops,
        refinement_params=count_params(*split.refinement) if skippable else 0,
        any_depth_params=_count_any_depth(stage),
        num_blocks=len(split),
        num_essential=split.num_essential if skippable else len(split),
    )
    return counted, output


def _count_any_depth(stage: nn.Module) -> int:
    return sum(
        count_params(module.essential)
        for module in stage.modules()
        if isinstance(module, SwitchableBatchNorm2d | Aggregator) and module.essential is not None
    )

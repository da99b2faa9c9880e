"""Converts state dicts of the original RT-DETR and of Hugging Face's RTDetr into AnyDepth-DETR, and to the latter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.models.batchnorm import FrozenBatchNorm2d
from training.models.conversion import Conversion, fill
from training.models.detr import SIZES, AnyDepthDetr, DetrSize
from training.models.detr_layouts import HUGGINGFACE, ORIGINAL, PACKED, Layout, huggingface_v5_key
from training.models.fine import FINE
from training.models.resnet import STEM_CHANNELS, ResNetSize


def from_original(state: Mapping[str, Tensor], model: AnyDepthDetr) -> Conversion:
    """Converts a state dict of the original RT-DETR, with keys `backbone.conv1.conv1_1.conv.weight` and so on.

    An essential batch norm starts as a copy of the full one: weight, bias and running statistics. FINE, which the
    original lacks, stays as initialised.

    Args:
        state: tensors by key.
        model: of the same size and number of classes; not changed.

    Raises:
        ValueError: a state dict of another network, size or number of classes, or one that lacks tensors.
    """
    return _convert(ORIGINAL, {key: key for key in state}, state, model)


def from_huggingface(state: Mapping[str, Tensor], model: AnyDepthDetr) -> Conversion:
    """The same for a state dict of Hugging Face's RTDetrForObjectDetection, of transformers 4 or 5.

    State dicts of version 4 hold the heads twice, under two names; the second counts as no key of its own.

    Raises:
        ValueError: also where the two differ.
    """
    sources: dict[str, str] = {}
    for key, tensor in state.items():
        first = sources.setdefault(huggingface_v5_key(key), key)
        if first != key and not torch.equal(tensor, state[first]):
            raise ValueError(f"{first} and {key} are two names of one tensor, but hold different values")
    return _convert(HUGGINGFACE, sources, state, model)


def _convert(
    layout: Layout, sources: Mapping[str, str], state: Mapping[str, Tensor], model: AnyDepthDetr
) -> Conversion:
    """Converts `state`, where `sources` gives its key for each key of `layout`."""
    ours = model.state_dict()
    found: dict[str, tuple[str, Tensor]] = {}
    _check({key: state[source].shape for key, source in sources.items()}, layout, model)
    for key in ours:
        if ".fine." not in key and (theirs := layout.key(key)) in sources:
            tensor = state[sources[theirs]]
            if ".in_proj_" in theirs:
                tensor = tensor.chunk(len(PACKED))[PACKED.index(key.split(".")[-2])]
            found[key] = (sources[theirs], tensor)
    return fill(model, model.name, found, sources.values())


def _check(shapes: Mapping[str, torch.Size], layout: Layout, model: AnyDepthDetr) -> None:
    """Refuses a state dict of another network, size or number of classes than `model`."""

    def width(ours: str) -> int:
        return shapes.get(layout.key(ours), (0,))[0]

    def count(prefix: str, inner: str) -> int:
        return next(i for i in itertools.count() if not width(f"{prefix}.{i}.{inner}"))

    if width("stem.conv3.conv.weight") != STEM_CHANNELS:
        raise ValueError(
            f"no state dict of {layout.name}: it lacks a {layout.key('stem.conv3.conv.weight')} of {STEM_CHANNELS} "
            f"channels; its first of {len(shapes)} keys are {list(shapes)[:3]}"
        )
    p2, p3, p4, p5 = (count(f"stages.p{level}.blocks", "conv1.conv.weight") for level in range(2, 6))
    backbone = ResNetSize(
        (p2, p3, p4, p5),
        bottleneck=width("stages.p2.blocks.0.conv3.conv.weight") > 0,
        frozen=False,
    )
    hidden = width("aifi.project.conv.weight")
    given = DetrSize(
        backbone,
        hidden_channels=hidden,
        ffn_channels=width("aifi.linear1.weight"),
        expansion=width("stages.fpn_p4.block.conv1.conv.weight") / max(hidden, 1),
        num_layers=count("decoder.layers", "norm1.weight"),
    )
    known = {replace(s, backbone=replace(s.backbone, frozen=False)): f"detr-{name}" for name, s in SIZES.items()}
    blocks = "+".join(str(n) for n in backbone.num_blocks)
    name = known.get(given) or (
        f"RT-DETR of no size known here ({blocks} {'bottlenecks' if backbone.bottleneck else 'basic blocks'}, "
        f"width {hidden}, FFN {given.ffn_channels}, expansion {given.expansion:g}, {given.num_layers} decoder layers)"
    )
    num_classes = width("decoder.score.0.weight")
    if (name, num_classes) != (model.name, model.num_classes):
        raise ValueError(
            f"the checkpoint is a {name} with {num_classes} classes; "
            f"expected one of {model.name} with {model.num_classes} classes"
        )


def to_huggingface(model: AnyDepthDetr) -> Conversion:
    """Converts the full path of `model` to a state of transformers 5's RTDetrForObjectDetection.

    Its keys are exactly those of a network built from `huggingface_config`. What has no place there is reported as
    unexpected: essential batch norms, a FINE that does nothing yet, and the batch counts of frozen norms.

    Raises:
        ValueError: a FINE that changes its input, which RTDetr cannot express.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, FINE) and not _is_identity(module):
            raise ValueError(f"{name} of the {model.name} is trained, and {HUGGINGFACE.name} has no FINE")
    state: dict[str, Tensor] = {}
    matched, unexpected = [], []
    for key, tensor in model.state_dict().items():
        owner, _, kind = key.rpartition(".")
        frozen_count = kind == "num_batches_tracked" and isinstance(modules[owner], FrozenBatchNorm2d)
        if ".essential." in key or ".fine." in key or frozen_count:
            unexpected.append(key)
        else:
            theirs = HUGGINGFACE.key(key)
            state[theirs] = tensor.detach().clone(memory_format=torch.contiguous_format)
            matched.append((key, theirs))
    return Conversion(state, tuple(matched), missing=(), unexpected=tuple(unexpected))


def _is_identity(fine: FINE) -> bool:
    generator = torch.Generator().manual_seed(0)
    channels = fine.query.in_features
    low, high = (torch.randn(1, channels, side, side, generator=generator) for side in (16, 8))
    with torch.no_grad():
        return torch.equal(fine(low, high), low)


def huggingface_config(size: str, class_names: Sequence[str]) -> dict[str, Any]:
    """What transformers' RTDetrConfig needs to know of a size (r18, r34, r50 or r101), as in its `config.json`."""
    detr = SIZES[size]
    channels = list(detr.backbone.channels)
    return {
        "model_type": "rt_detr",
        "architectures": ["RTDetrForObjectDetection"],
        "backbone_config": {
            "model_type": "rt_detr_resnet",
            "embedding_size": STEM_CHANNELS,
            "hidden_sizes": channels,
            "depths": list(detr.backbone.num_blocks),
            "layer_type": "bottleneck" if detr.backbone.bottleneck else "basic",
            "out_features": ["stage2", "stage3", "stage4"],
        },
        "freeze_backbone_batch_norms": detr.backbone.frozen,
        "encoder_in_channels": channels[1:],
        "encoder_hidden_dim": detr.hidden_channels,
        "encoder_ffn_dim": detr.ffn_channels,
        "hidden_expansion": detr.expansion,
        "decoder_in_channels": [detr.hidden_channels] * 3,
        "decoder_layers": detr.num_layers,
        "id2label": {str(index): name for index, name in enumerate(class_names)},
        "label2id": {name: index for index, name in enumerate(class_names)},
    }

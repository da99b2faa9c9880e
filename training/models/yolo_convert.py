"""Converts state dicts of the original YOLOv12 ("turbo") into AnyDepth-YOLO."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from training.models.conversion import Conversion, fill
from training.models.yolo import AnyDepthYolo
from training.models.yolo_blocks import SIZES

NAME = "the original YOLOv12"
MARKS = ("model.0.conv.", "model.model.0.conv.")
"""Beginnings of keys that no other layout has."""

_LAYERS = {
    "stem.conv1": "0",
    "stem.conv2": "1",
    "stages.p2.stage": "2",
    "stages.p3.downsample": "3",
    "stages.p3.stage": "4",
    "stages.p4.downsample": "5",
    "stages.p4.stage": "6",
    "stages.p5.downsample": "7",
    "stages.p5.stage": "8",
    "stages.fpn_p4.stage": "11",
    "stages.fpn_p3.stage": "14",
    "stages.pan_p4.downsample": "15",
    "stages.pan_p4.stage": "17",
    "stages.pan_p5.downsample": "18",
    "stages.pan_p5.stage": "20",
    "head.box": "21.cv2",
    "head.cls": "21.cv3",
}
"""The original's index of each layer; up-sampling and concatenation have indices of their own there."""

_WORDS = {
    "entry": "cv1",
    "aggregator": "cv2",
    "blocks": "m",
    "conv1": "cv1",
    "conv2": "cv2",
    "conv3": "cv3",
    "bottlenecks": "m",
    "first": "0",
    "second": "1",
    "attention": "attn",
    "query_key": "qk",
    "value": "v",
    "position": "pe",
    "projection": "proj",
    "mlp1": "mlp.0",
    "mlp2": "mlp.1",
    "norm": "bn",
}
"""Names inside a layer. Both halves of what is switchable, `full` and `essential`, come from the one original."""

_CLASS_BRANCH = {"0": "0.0", "1": "0.1", "2": "1.0", "3": "1.1", "4": "2"}
"""Layers of the class branch: a row here, pairs and an output in the original."""

_BINS = "head.bins"


def original_key(key: str) -> str | None:
    """Where the original keeps our tensor `key`, without the leading `model.`; None if it has no such layer."""
    if key == _BINS:
        return "21.dfl.conv.weight"
    layer = next((name for name in _LAYERS if key.startswith(f"{name}.")), None)
    if layer is None:
        return None
    words = key[len(layer) + 1 :].split(".")
    if layer == "head.cls":
        words[1] = _CLASS_BRANCH[words[1]]
    inner = [_WORDS.get(word, word) for word in words if word not in ("full", "essential")]
    return ".".join([_LAYERS[layer], *inner])


def from_original(state: Mapping[str, Tensor], model: AnyDepthYolo) -> Conversion:
    """Converts a state dict of the original YOLOv12 turbo for `model`, with keys `model.0.conv.weight` and so on.

    An essential batch norm starts as a copy of the full one: weight, bias and running statistics. A dedicated
    essential aggregator starts as the leading columns of the full aggregator's weight, those of the pieces that the
    essential path has, with a copy of its batch norm. FINE, which the original lacks, stays as initialised.

    Args:
        state: tensors by key; keys may also start with `model.model.`, as a wrapped model saves them.
        model: of the same size and number of classes; not changed.

    Raises:
        ValueError: no state dict of YOLOv12, one from before turbo, one with folded batch norms, one of another
            size or number of classes, or one that lacks tensors.
    """
    prefix = "model.model." if any(key.startswith("model.model.") for key in state) else "model."
    _check(state, prefix, model)
    found: dict[str, tuple[str, Tensor]] = {}
    for key, ours in model.state_dict().items():
        name = original_key(key)
        if name is None or prefix + name not in state:
            continue
        tensor = state[prefix + name]
        if key == _BINS:
            tensor = tensor.flatten()
        elif key.endswith("aggregator.essential.conv.weight"):
            tensor = tensor[:, : ours.shape[1]]
        found[key] = (prefix + name, tensor)
    return fill(model, model.name, found, state)


def _check(state: Mapping[str, Tensor], prefix: str, model: AnyDepthYolo) -> None:
    """Refuses what is recognisably no checkpoint for `model`, in the words of who has to find the right one."""
    before_turbo = next((key for key in state if key.endswith("attn.qkv.conv.weight")), None)
    if before_turbo is not None:
        raise ValueError(
            f"{before_turbo}: area attention with one convolution for query, key and value is YOLOv12 from before its "
            "turbo release (v1.0), another architecture; only turbo checkpoints, with attn.qk and attn.v, convert"
        )
    stem, block, classes = (
        prefix + name for name in ("0.conv.weight", "6.m.0.0.attn.qk.conv.weight", "21.cv3.0.2.weight")
    )
    for key in (stem, block, classes):
        if key not in state:
            raise ValueError(
                f"no YOLOv12 turbo state dict: it lacks {key}; its first of {len(state)} keys are {list(state)[:3]}"
            )
    if f"{prefix}0.conv.bias" in state:
        raise ValueError(
            f"{prefix}0.conv.bias: the batch norms of this checkpoint are folded into its convolutions; "
            "convert the one from before fusing"
        )
    given, num_classes = _size_of(state, prefix), state[classes].shape[0]
    if (given, num_classes) != (model.name, model.num_classes):
        raise ValueError(
            f"the checkpoint is a {given} with {num_classes} classes; "
            f"expected one of {model.name} with {model.num_classes} classes"
        )


def _size_of(state: Mapping[str, Tensor], prefix: str) -> str:
    """The model a state dict belongs to, by its stem's channels and the number of blocks in its layer 6."""
    blocks = f"{prefix}6.m."
    num_blocks = len({key.removeprefix(blocks).split(".")[0] for key in state if key.startswith(blocks)})
    channels = state[f"{prefix}0.conv.weight"].shape[0]
    for name, size in SIZES.items():
        if (size.channels(64), size.repeats(4)) == (channels, num_blocks):
            return f"yolo-{name}"
    return f"YOLOv12 of no size known here ({channels} channels in the stem, {num_blocks} blocks in layer 6)"

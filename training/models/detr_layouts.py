"""Where the original RT-DETR and Hugging Face's RTDetr keep the tensors of AnyDepth-DETR."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Words = Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """How another implementation names our tensors.

    Attributes:
        name: of the implementation, for messages.
        mark: the beginning of a key that no other layout has.
        parts: per part of the network our prefix, theirs, and our words inside of it with theirs; the first row
            that fits a key counts.
    """

    name: str
    mark: str
    parts: tuple[tuple[str, str, Words], ...]

    def key(self, ours: str) -> str:
        """Their key of our tensor. Both halves of a switchable norm, `full` and `essential`, are the one they have.

        Raises:
            KeyError: a tensor that only our network has.
        """
        ours = re.sub(r"\.(full|essential)\.", ".", ours)
        for prefix, theirs, words in self.parts:
            if ours.startswith(f"{prefix}."):
                inner = ours[len(prefix) :] + "."
                for word, their_word in words.items():
                    inner = inner.replace(f".{word}.", f".{their_word}.")
                return f"{theirs}{inner}"[:-1]
        raise KeyError(ours)


def _attention(prefix: str, words: Words) -> dict[str, str]:
    return {f"{prefix}.{ours}": theirs for ours, theirs in words.items()}


_CSP = {"blocks": "bottlenecks"}
_PAIR = {"conv": "0", "norm": "1"}

_NECK: tuple[tuple[str, str, Words], ...] = (
    ("aifi.lateral", "encoder.lateral_convs.0", {}),
    ("stages.fpn_p4.lateral", "encoder.lateral_convs.1", {}),
    ("stages.fpn_p4.block", "encoder.fpn_blocks.0", _CSP),
    ("stages.fpn_p3.block", "encoder.fpn_blocks.1", _CSP),
    ("stages.pan_p4.downsample", "encoder.downsample_convs.0", {}),
    ("stages.pan_p5.downsample", "encoder.downsample_convs.1", {}),
    ("stages.pan_p4.block", "encoder.pan_blocks.0", _CSP),
    ("stages.pan_p5.block", "encoder.pan_blocks.1", _CSP),
)

_SAMPLING = {
    "offsets": "sampling_offsets",
    "weights": "attention_weights",
    "value": "value_proj",
    "output": "output_proj",
}

PACKED = ("query", "key", "value")
"""Projections of an attention whose rows the original keeps in one tensor, in this order."""

_ORIGINAL_ATTENTION = {
    **{f"{name}.{kind}": f"self_attn.in_proj_{kind}" for name in PACKED for kind in ("weight", "bias")},
    "output": "self_attn.out_proj",
}
_ORIGINAL_BLOCK = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut.project": "short.conv"}

ORIGINAL = Layout(
    "the original RT-DETR",
    "backbone.conv1.conv1_1.",
    (
        *((f"stem.conv{i}", f"backbone.conv1.conv1_{i}", {}) for i in (1, 2, 3)),
        ("stages.p2.blocks.0.shortcut.project", "backbone.res_layers.0.blocks.0.short", {}),
        *((f"stages.p{i + 2}.blocks", f"backbone.res_layers.{i}.blocks", _ORIGINAL_BLOCK) for i in range(4)),
        ("stages.fpn_p3.project", "encoder.input_proj.0", _PAIR),
        ("stages.fpn_p4.project", "encoder.input_proj.1", _PAIR),
        ("aifi.project", "encoder.input_proj.2", _PAIR),
        *_NECK,
        ("aifi", "encoder.encoder.0.layers.0", _attention("attention", _ORIGINAL_ATTENTION)),
        ("decoder.project", "decoder.input_proj", {}),
        ("decoder.selection.output", "decoder.enc_output.0", {}),
        ("decoder.selection.norm", "decoder.enc_output.1", {}),
        ("decoder.selection.score", "decoder.enc_score_head", {}),
        ("decoder.selection.box", "decoder.enc_bbox_head", {}),
        ("decoder.query_position", "decoder.query_pos_head", {}),
        (
            "decoder.layers",
            "decoder.decoder.layers",
            {**_attention("self_attention", _ORIGINAL_ATTENTION), "cross_attention": "cross_attn", **_SAMPLING},
        ),
        ("decoder.score", "decoder.dec_score_head", {}),
        ("decoder.box", "decoder.dec_bbox_head", {}),
        ("decoder.denoising_embedding", "decoder.denoising_class_embed", {}),
    ),
)

_HF_CONV = {"conv": "convolution", "norm": "normalization"}
_HF_BLOCK = {"conv1": "layer.0", "conv2": "layer.1", "conv3": "layer.2", "shortcut.project": "shortcut.1", **_HF_CONV}
_HF_ATTENTION = {name: f"self_attn.{name[0]}_proj" for name in (*PACKED, "output")}
_HF_ENCODER = {
    **_attention("attention", _HF_ATTENTION),
    "norm1": "self_attn_layer_norm",
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
    "norm2": "final_layer_norm",
}
_HF_DECODER = {
    **_attention("self_attention", _HF_ATTENTION),
    "norm1": "self_attn_layer_norm",
    "cross_attention": "encoder_attn",
    **_SAMPLING,
    "norm2": "encoder_attn_layer_norm",
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
    "norm3": "final_layer_norm",
}
_HF_BACKBONE = "model.backbone.model"

HUGGINGFACE = Layout(
    "Hugging Face's RTDetr",
    f"{_HF_BACKBONE}.embedder.",
    (
        *((f"stem.conv{i + 1}", f"{_HF_BACKBONE}.embedder.embedder.{i}", _HF_CONV) for i in range(3)),
        (
            "stages.p2.blocks.0.shortcut.project",
            f"{_HF_BACKBONE}.encoder.stages.0.layers.0.shortcut",
            _HF_CONV,
        ),
        *((f"stages.p{i + 2}.blocks", f"{_HF_BACKBONE}.encoder.stages.{i}.layers", _HF_BLOCK) for i in range(4)),
        ("stages.fpn_p3.project", "model.encoder_input_proj.0", _PAIR),
        ("stages.fpn_p4.project", "model.encoder_input_proj.1", _PAIR),
        ("aifi.project", "model.encoder_input_proj.2", _PAIR),
        *((ours, f"model.{theirs}", words) for ours, theirs, words in _NECK),
        ("aifi", "model.encoder.aifi.0.layers.0", _HF_ENCODER),
        ("decoder.project", "model.decoder_input_proj", _PAIR),
        ("decoder.selection.output", "model.enc_output.0", {}),
        ("decoder.selection.norm", "model.enc_output.1", {}),
        ("decoder.selection.score", "model.enc_score_head", {}),
        ("decoder.selection.box", "model.enc_bbox_head", {}),
        ("decoder.query_position", "model.decoder.query_pos_head", {}),
        ("decoder.layers", "model.decoder.layers", _HF_DECODER),
        ("decoder.score", "model.decoder.class_embed", {}),
        ("decoder.box", "model.decoder.bbox_embed", {}),
        ("decoder.denoising_embedding", "model.denoising_class_embed", {}),
    ),
)
"""Version 5 of transformers; `huggingface_v5_key` gives it for the keys of version 4."""

_V4_TO_V5 = (
    (r"^(class|bbox)_embed\.", r"model.decoder.\1_embed."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.layers\.(\d+)\.(fc[12])\.", r".layers.\1.mlp.\2."),
    (r"^model\.encoder\.encoder\.(\d+)\.layers\.", r"model.encoder.aifi.\1.layers."),
)


def huggingface_v5_key(key: str) -> str:
    """The key that transformers 5 gives what version 4 called `key`; keys of version 5 stay as they are."""
    for pattern, replacement in _V4_TO_V5:
        key = re.sub(pattern, replacement, key)
    return key

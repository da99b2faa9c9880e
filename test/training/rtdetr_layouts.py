"""States of the other layouts, made of Hugging Face's version 5 by tables read from that side."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TO_ORIGINAL = (
    (r"^model\.", ""),
    (r"^backbone\.model\.embedder\.embedder\.0\.", "backbone.conv1.conv1_1."),
    (r"^backbone\.model\.embedder\.embedder\.1\.", "backbone.conv1.conv1_2."),
    (r"^backbone\.model\.embedder\.embedder\.2\.", "backbone.conv1.conv1_3."),
    (r"^backbone\.model\.encoder\.stages\.(\d)\.layers\.", r"backbone.res_layers.\1.blocks."),
    (r"\.layer\.0\.", ".branch2a."),
    (r"\.layer\.1\.", ".branch2b."),
    (r"\.layer\.2\.", ".branch2c."),
    (r"\.shortcut\.1\.", ".short.conv."),
    (r"\.shortcut\.", ".short."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
    (r"^decoder\.", "decoder.decoder."),
    (r"^encoder_input_proj\.", "encoder.input_proj."),
    (r"^decoder_input_proj\.(\d)\.0\.", r"decoder.input_proj.\1.conv."),
    (r"^decoder_input_proj\.(\d)\.1\.", r"decoder.input_proj.\1.norm."),
    (r"^encoder\.aifi\.0\.", "encoder.encoder.0."),
    (r"^(enc_output|enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"decoder.\1."),
    (r"^decoder\.decoder\.class_embed\.", "decoder.dec_score_head."),
    (r"^decoder\.decoder\.bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^decoder\.decoder\.query_pos_head\.", "decoder.query_pos_head."),
    (r"\.mlp\.fc1\.", ".linear1."),
    (r"\.mlp\.fc2\.", ".linear2."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"^(encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"^(decoder\..*)\.final_layer_norm\.", r"\1.norm3."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.o_proj\.", ".out_proj."),
)

_TO_VERSION_4 = (
    (r"\.o_proj\.", ".out_proj."),
    (r"\.mlp\.(fc\d)\.", r".\1."),
    (r"^model\.encoder\.aifi\.", "model.encoder.encoder."),
)


def as_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network in the layout of the original RT-DETR: projections to q, k and v are rows of one tensor."""
    original: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = _rename(key, _TO_ORIGINAL)
        if name.endswith((".k_proj.weight", ".k_proj.bias", ".v_proj.weight", ".v_proj.bias")):
            continue
        if (packed := re.sub(r"\.q_proj\.(\w+)$", r".in_proj_\1", name)) != name:
            name, tensor = packed, torch.cat([state[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
        original[name] = tensor
    return original


def as_version_4(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network as version 4 of transformers has it in memory, with the heads under two names."""
    older = {_rename(key, _TO_VERSION_4): tensor for key, tensor in state.items()}
    heads = [key for key in older if re.match(r"model\.decoder\.(class|bbox)_embed\.", key)]
    return {**older, **{key.removeprefix("model.decoder."): older[key] for key in heads}}


def _rename(key: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        key = re.sub(pattern, replacement, key)
    return key

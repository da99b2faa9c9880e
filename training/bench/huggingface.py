"""Hugging Face's RTDetr with nothing left at its initial value: the network that ours is compared with."""

from __future__ import annotations

import zlib

import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection

from training.data.coco_names import COCO_NAMES
from training.models.detr_convert import huggingface_config


def random_rtdetr(size: str, seed: int, class_names: tuple[str, ...] = COCO_NAMES) -> RTDetrForObjectDetection:
    """A network of a size, in evaluation mode, every parameter and running statistic random, activations of order one.

    Each tensor is drawn from its own key and `seed`, so that their order does not matter.
    """
    network = RTDetrForObjectDetection(RTDetrConfig(**huggingface_config(size, class_names)))
    for key, tensor in network.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {key}".encode()))
        if key.endswith("num_batches_tracked"):
            tensor.random_(1, 1000, generator=generator)
        elif key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.1, generator=generator)
        else:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    return network.eval()

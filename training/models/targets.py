"""Ground truth of a batch, padded to one number of boxes an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Objects of B images.

    Attributes:
        boxes: [B, M, 4] float, xyxy in network pixels; padding is zero.
        labels: [B, M] int64 class indices; padding is -1.
        ignored: [B, K, 4] float, regions that are neither object nor background; padding is zero.
        masks: [B, M, H, W] bool, the pixels of each object; padding is False. None where they are not known.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    masks: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """[B, M] bool: which entries are objects."""
        return self.labels >= 0

    def chunk(self, parts: int) -> list[Targets]:
        """The images in `parts` runs of equal length (the last may be shorter), as `Tensor.chunk` cuts them."""
        tensors = zip(*(x.chunk(parts) for x in (self.boxes, self.labels, self.ignored)), strict=True)
        pieces = [Targets(*piece) for piece in tensors]
        if self.masks is None:
            return pieces
        masks = self.masks.chunk(parts)
        return [dataclasses.replace(piece, masks=own) for piece, own in zip(pieces, masks, strict=True)]

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Targets(self.boxes.to(device), self.labels.to(device), self.ignored.to(device), masks)


def pad_targets(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    ignored: Sequence[Tensor],
    masks: Sequence[Tensor] | None = None,
) -> Targets:
    """Targets of a batch from per-image boxes [n, 4], labels [n], ignored boxes [k, 4] and masks [n, H, W]."""

    def pad(items: Sequence[Tensor], value: float) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(items), batch_first=True, padding_value=value)

    padded_masks = None if masks is None else pad(masks, False)
    return Targets(pad(boxes, 0.0), pad(labels, -1), pad(ignored, 0.0), padded_masks)

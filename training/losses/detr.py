"""RT-DETR's detection loss: varifocal, L1 and GIoU on matched queries, at every layer and on denoising queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.matcher import HungarianMatcher, Match
from training.losses.normaliser import shared_normaliser
from training.models.boxes import box_iou, cxcywh_to_xyxy, generalized_iou, xyxy_to_cxcywh
from training.models.denoising import DenoisingQueries
from training.models.targets import Targets


@dataclass(frozen=True)
class DetrLoss:
    """Weights of the terms, and the matcher. The defaults are RT-DETR's.

    Every decoder layer and the encoder's selection are matched on their own. Queries without an object whose centre
    lies in an ignored region take no part in the class term.

    Attributes:
        class_weight: of the varifocal loss (Zhang et al., "VarifocalNet", equation 2).
        l1_weight: of the L1 distance of boxes cxcywh in [0, 1].
        giou_weight: of 1 - GIoU.
        alpha: weight of the negatives in the varifocal loss.
        gamma: their exponent.
    """

    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    alpha: float = 0.75
    gamma: float = 2.0
    matcher: HungarianMatcher = field(default_factory=HungarianMatcher)

    def __call__(
        self, outputs: Mapping[str, Any], targets: Targets, image_size: Sequence[int]
    ) -> tuple[dict[str, Tensor], list[Match]]:
        """Loss terms, weighted, as scalars, whose sum is the loss; and the matches of the last layer.

        `class`, `l1` and `giou` are the last layer's; the same with the prefixes `auxiliary_` (the layers before),
        `encoder_` and `denoising_`, each added up, zero where there are no such outputs.

        Args:
            outputs: what `AnyDepthDetr` returns while training.
            targets: objects of the batch, in network pixels.
            image_size: (height, width) of the network's input.
        """
        boxes = _relative(targets.boxes, image_size)
        ignored = targets.ignored / _scale(targets.ignored, image_size)
        count = shared_normaliser(targets.valid.sum())
        *earlier, last = outputs["layers"]
        terms = {
            prefix + name: last["logits"].new_zeros(())
            for prefix in ("", "auxiliary_", "encoder_", "denoising_")
            for name in ("class", "l1", "giou")
        }

        def add(prefix: str, part: Mapping[str, Tensor], matches: list[Match], normaliser: Tensor) -> None:
            for name, value in self._terms(part, boxes, targets.labels, ignored, matches, normaliser).items():
                terms[prefix + name] = terms[prefix + name] + value

        last_matches = self.matcher(last, boxes, targets)
        add("", last, last_matches, count)
        for layer in earlier:
            add("auxiliary_", layer, self.matcher(layer, boxes, targets), count)
        add("encoder_", outputs["encoder"], self.matcher(outputs["encoder"], boxes, targets), count)
        if "denoising_layers" in outputs:
            noisy: DenoisingQueries = outputs["denoising"]
            matches = [Match(*pair) for pair in zip(noisy.positives, noisy.assigned, strict=True)]
            for layer in outputs["denoising_layers"]:
                add("denoising_", layer, matches, count * noisy.num_groups)
        return terms, last_matches

    def match(self, outputs: Mapping[str, Tensor], targets: Targets, image_size: Sequence[int]) -> list[Match]:
        """The matches of `logits` and `boxes_cxcywh` with the objects."""
        return self.matcher(outputs, _relative(targets.boxes, image_size), targets)

    def _terms(
        self,
        outputs: Mapping[str, Tensor],
        boxes: Tensor,
        labels: Tensor,
        ignored: Tensor,
        matches: Sequence[Match],
        normaliser: Tensor,
    ) -> dict[str, Tensor]:
        logits, predicted = outputs["logits"], outputs["boxes_cxcywh"]
        images = torch.cat([torch.full_like(match.queries, image) for image, match in enumerate(matches)])
        queries = torch.cat([match.queries for match in matches])
        objects = torch.cat([match.objects for match in matches])
        matched, wanted = predicted[images, queries], boxes[images, objects]
        corners, wanted_corners = cxcywh_to_xyxy(matched), cxcywh_to_xyxy(wanted)

        quality = torch.zeros_like(logits)
        overlap = box_iou(corners.detach(), wanted_corners)
        quality[images, queries, labels[images, objects]] = overlap.to(quality.dtype)
        negative = torch.ones_like(logits)
        negative[images, queries, labels[images, objects]] = 0
        counted = ~centres_in_boxes(predicted.detach(), ignored)
        counted[images, queries] = True
        weight = (self.alpha * logits.detach().sigmoid() ** self.gamma * negative + quality) * counted[..., None]
        varifocal = F.binary_cross_entropy_with_logits(logits, quality, weight, reduction="sum")
        return {
            "class": self.class_weight * varifocal / normaliser,
            "l1": self.l1_weight * (matched - wanted).abs().sum() / normaliser,
            "giou": self.giou_weight * (1 - generalized_iou(corners, wanted_corners)).sum() / normaliser,
        }


def _scale(like: Tensor, image_size: Sequence[int]) -> Tensor:
    height, width = image_size
    return like.new_tensor([width, height, width, height])


def _relative(boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Boxes cxcywh in [0, 1], from xyxy in pixels."""
    return xyxy_to_cxcywh(boxes / _scale(boxes, image_size))


def centres_in_boxes(predicted: Tensor, regions: Tensor) -> Tensor:
    """[B, Q] bool: boxes cxcywh [B, Q, 4] whose centre lies in any of the regions xyxy [B, K, 4] of their image."""
    x, y = predicted[..., 0, None], predicted[..., 1, None]
    regions = regions[:, None]
    inside = (x >= regions[..., 0]) & (x < regions[..., 2]) & (y >= regions[..., 1]) & (y < regions[..., 3])
    return inside.any(dim=-1)

"""Linear CKA between the essential and the full path at each of the eight stage boundaries (AnyDepth, Table 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from anydepth_perception.depth.space import ESSENTIAL, Step
from training.models.detector import AnyDepthDetector
from training.models.stage import split_of

BY_NETWORK = "network"
"""The boundary of the super-net against that of the base-net: what all paths before it did differently included."""

BY_STAGE = "stage"
"""The stage alone: both of its paths read what the super-net gives them."""


class LinearCka:
    """Linear centred kernel alignment of two representations of the same examples, fed batch by batch.

    Examples are cells of feature maps, features are channels. 1 means equal but for rotation, scaling and shift.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Tensor] = []
        self._products: list[Tensor] = []

    def update(self, x: Tensor, y: Tensor) -> None:
        """Adds examples [n, p] and [n, q], row by row the same."""
        x, y = x.double(), y.double()
        sums, products = [x.sum(0), y.sum(0)], [x.T @ y, x.T @ x, y.T @ y]
        if self._count:
            sums = [old + new for old, new in zip(self._sums, sums, strict=True)]
            products = [old + new for old, new in zip(self._products, products, strict=True)]
        self._count += len(x)
        self._sums, self._products = sums, products

    def value(self) -> float:
        """The alignment of all examples so far, in [0, 1]; NaN where a representation does not vary.

        Raises:
            ValueError: there are no examples.
        """
        if not self._count:
            raise ValueError("CKA of no examples; update it first")
        sx, sy = self._sums
        pairs = ((sx, sy), (sx, sx), (sy, sy))
        cross, own_x, own_y = (
            float((product - torch.outer(a, b) / self._count).norm())
            for product, (a, b) in zip(self._products, pairs, strict=True)
        )
        scale = own_x * own_y
        return cross**2 / scale if scale else float("nan")


def essential_steps(model: AnyDepthDetector) -> Iterator[Step]:
    """The steps with every stage that has blocks to skip on its essential path, in static networks too.

    There nobody trained it: the split is applied after the fact, as the paper does with plain RT-DETR and YOLOv12.
    """
    for step in model.space.route(model.space.base):
        splits = step.entry in model.stages and split_of(model.stages[step.entry]).skippable
        yield Step(step.entry, ESSENTIAL) if splits else step


@torch.no_grad()
def boundary_cka(model: AnyDepthDetector, images: Iterable[Tensor]) -> dict[str, dict[str, float]]:
    """CKA of the two paths by stage, `BY_NETWORK` and `BY_STAGE`, over batches of images [B, 3, H, W] in [0, 1].

    The model is in evaluation mode, and on the device of the images.

    Raises:
        ValueError: there are no images.
    """
    kinds = {kind: {name: LinearCka() for name in model.stages} for kind in (BY_NETWORK, BY_STAGE)}
    for batch in images:
        full = model.features(batch, model.space.full)
        essential = model.features_of(batch, essential_steps(model))
        for name in model.stages:
            inputs = [full[source] for source in model.map_inputs[name]]
            alone = model.stages[name](*inputs, path=ESSENTIAL)
            kinds[BY_NETWORK][name].update(cells(essential[name]), cells(full[name]))
            kinds[BY_STAGE][name].update(cells(alone), cells(full[name]))
    return {kind: {name: cka.value() for name, cka in stages.items()} for kind, stages in kinds.items()}


def cells(features: Tensor) -> Tensor:
    """Feature maps [B, C, H, W] as examples [B*H*W, C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)

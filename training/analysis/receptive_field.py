"""Effective receptive fields of the backbone's stages and how they grow (FINE, appendix F; Luo et al.)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anydepth_perception.depth.space import FULL, ONLY, Step
from training.models.detector import AnyDepthDetector


@dataclass(frozen=True)
class ReceptiveField:
    """The effective receptive field of one stage's central cell, averaged over images.

    Attributes:
        sigma: pixels; root mean square distance along one axis from its centre, the paper's size.
        half_radius: pixels; half of the gradient lies nearer to the centre than this. For a Gaussian 1.18 sigma; the
            long tails that attention gives, and that dominate sigma, hardly move it.
        gradient: float64 [H, W], mean absolute gradient of the central cell with respect to each pixel.
    """

    sigma: float
    half_radius: float
    gradient: Tensor


def spread(gradient: Tensor) -> tuple[float, float]:
    """Sigma and half radius, in pixels, of absolute gradients [H, W]; see `ReceptiveField`.

    Raises:
        ValueError: the gradient is zero everywhere.
    """
    total = gradient.sum()
    if not total > 0:
        raise ValueError("the gradient is zero everywhere; the cell depends on no pixel")
    weights = (gradient / total).double()
    rows = torch.arange(gradient.shape[0], dtype=torch.float64, device=gradient.device)[:, None]
    columns = torch.arange(gradient.shape[1], dtype=torch.float64, device=gradient.device)[None]
    squared = (rows - (weights * rows).sum()) ** 2 + (columns - (weights * columns).sum()) ** 2
    sigma = math.sqrt(float((weights * squared).sum()) / 2)
    order = squared.flatten().argsort()
    reached = weights.flatten()[order].cumsum(0)
    half = int(torch.searchsorted(reached, torch.tensor(0.5, dtype=torch.float64, device=reached.device)))
    return sigma, math.sqrt(float(squared.flatten()[order][min(half, len(order) - 1)]))


def receptive_fields(
    model: AnyDepthDetector, images: Iterable[Tensor], pools: Sequence[int] = (1,)
) -> dict[tuple[str, int], ReceptiveField]:
    """The receptive field of each backbone stage of the super-net, by stage and pooling.

    Args:
        model: in evaluation mode.
        images: each [1, 3, H, W] in [0, 1], all of one size, on the model's device.
        pools: windows over which cells are averaged before the central one is taken; FINE's tokens of a lower level
            are such averages, over r*k cells a side.

    Raises:
        ValueError: there are no images, or nothing depends on a pixel.
    """
    sums: dict[tuple[str, int], Tensor] = {}
    spreads: dict[tuple[str, int], list[tuple[float, float]]] = {}
    count = 0
    for image in images:
        count += 1
        pixels = image.clone().requires_grad_(True)
        x = model.run(Step("stem", ONLY), [pixels])
        for name in model.backbone:
            x = model.run(Step(name, FULL), [x])
            # The highest level is never the lower one of a pair, so that nobody averages its cells.
            for pool in pools if name != model.backbone[-1] else (1,):
                tokens = F.avg_pool2d(x, pool) if pool > 1 else x
                centre = tokens[0, :, tokens.shape[2] // 2, tokens.shape[3] // 2].sum()
                (gradient,) = torch.autograd.grad(centre, pixels, retain_graph=True)
                absolute = gradient[0].abs().sum(0).double()
                sums[name, pool] = sums.get((name, pool), torch.zeros_like(absolute)) + absolute
                spreads.setdefault((name, pool), []).append(spread(absolute))
    if not count:
        raise ValueError("receptive fields over no images; give some")
    return {
        key: ReceptiveField(
            sigma=sum(sigma for sigma, _ in spreads[key]) / count,
            half_radius=sum(radius for _, radius in spreads[key]) / count,
            gradient=(sums[key] / count).cpu(),
        )
        for key in sums
    }


def growth(fields: dict[tuple[str, int], ReceptiveField]) -> dict[str, dict[str, float]]:
    """How much larger the field of a stage is than that of the stage before it, for each pair, and the mean.

    `sigma` is the ratio of the paper, which should be near the stride ratio 2; `half_radius` the one without tails.
    """
    ratios = {
        f"{low}-{high}": {
            "sigma": fields[high, 1].sigma / fields[low, 1].sigma,
            "half_radius": fields[high, 1].half_radius / fields[low, 1].half_radius,
        }
        for low, high in itertools.pairwise(_stages(fields))
    }
    mean = {key: sum(pair[key] for pair in ratios.values()) / len(ratios) for key in ("sigma", "half_radius")}
    return {**ratios, "mean": mean}


def token_alignment(
    fields: dict[tuple[str, int], ReceptiveField], ratios: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Field of a token of the higher level over that of a token of the lower one, averaged over r x r cells.

    For the pairs that FINE joins, at k = 1; by r, of `half_radius`. 1 means that the two cover the same region.
    """
    return {
        f"{low}-{high}": {
            str(ratio): fields[high, 1].half_radius / fields[low, ratio].half_radius for ratio in ratios
        }
        for low, high in itertools.pairwise(_stages(fields)[1:])
    }


def _stages(fields: dict[tuple[str, int], ReceptiveField]) -> list[str]:
    return list(dict.fromkeys(name for name, _ in fields))

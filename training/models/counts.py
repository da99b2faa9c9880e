"""What is counted of a detector: parameters and floating-point operations, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anydepth_perception.depth.space import ESSENTIAL, FULL, Step

ATTENTION_OPERATORS = frozenset({"aten.bmm", "aten.baddbmm"})
"""What the plain attention kernel is made of. Linear layers are `mm` and `addmm`, convolutions `convolution`."""

T = TypeVar("T")


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, two a multiply-add; nothing else (norms, activations, sampling) counts.

    Attributes:
        layers: of convolutions and linear layers.
        attention: of attention's two products, queries by keys and weights by values.
    """

    layers: int = 0
    attention: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.layers + other.layers, self.attention + other.attention)

    @property
    def total(self) -> int:
        """Of both kinds."""
        return self.layers + self.attention


@dataclass(frozen=True)
class Part:
    """One row of the count of a detector, in the order of execution.

    Attributes:
        name: an entry of the detector's space, like `stem` or a stage (whose shared part is counted with it); a
            decoder layer, `decoder.1` to `decoder.L`, with its box head; or what has parameters alone.
        params: elements of all parameters, trained or frozen.
        flops: of one image, at each step that the part has a share in; empty where the work is counted elsewhere.
        refinement_params: those of blocks that only the full path runs.
        any_depth_params: those that any depth adds: the essential path's own batch norms and aggregator.
        num_blocks: N of a stage, else None.
        num_essential: k of a stage, N where it has nothing to skip.
        published_extra: what the published order of work adds: a box for every cell before the best are selected.
    """

    name: str
    params: int
    flops: Mapping[Step, Flops] = field(default_factory=dict)
    refinement_params: int = 0
    any_depth_params: int = 0
    num_blocks: int | None = None
    num_essential: int | None = None
    published_extra: Flops = Flops()

    def on(self, path: str) -> Flops | None:
        """What one run of the part costs on a path of its stage; None for an essential path that is not there."""
        if self.num_blocks is None:
            return next(iter(self.flops.values()), Flops()) if path == FULL else None
        if Step(self.name, path) not in self.flops:
            return None
        return sum(
            (flops for step, flops in self.flops.items() if step.way not in (FULL, ESSENTIAL) or step.way == path),
            Flops(),
        )


def count(run: Callable[[], T]) -> tuple[T, Flops]:
    """What `run` returns, and the operations of all that it calls."""
    # Fused attention kernels hide their products; the plain one consists of counted operators.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = run()
    by_operator = counter.get_flop_counts()["Global"]
    attention = sum(flops for operator, flops in by_operator.items() if str(operator) in ATTENTION_OPERATORS)
    return result, Flops(counter.get_total_flops() - attention, attention)


def count_params(*modules: nn.Module) -> int:
    """Elements of all parameters, trained or frozen."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())

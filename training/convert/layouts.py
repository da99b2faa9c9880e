"""Whose checkpoint it is, by its keys, under whatever prefixes the wrappers of a training run have left on them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

from training.convert.loading import Checkpoint, CheckpointError
from training.families import FAMILIES

OURS = "this project"
OUR_MARK = "stages.p2."
"""The beginning of a key that our weights files have and no published checkpoint has."""

MAX_PREFIXES = 4
"""How many wrappers a network may be in, one within another: compiled, parallel, averaged, a trainer's module."""

LEAST_SHARE = 0.25
"""Of the keys, under a prefix that is tried: a trainer's module may hold a network and its moving average."""


def unwrapped(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without the prefixes that hide its layout: `module.`, `_orig_mod.`, Lightning's `model.` and such.

    Prefixes are taken off until a layout fits. Of two copies of the network, a moving average is preferred. Tensors
    beside the network keep their keys; a count such as `n_averaged` is one of them.

    Raises:
        CheckpointError: no layout known here fits, with or without prefixes.
    """
    marks = _marks()
    level = [("", checkpoint.tensors)]
    for _ in range(MAX_PREFIXES + 1):
        for prefix, tensors in level:
            if _layout(tensors, marks) is not None:
                outside = {key: value for key, value in checkpoint.tensors.items() if not key.startswith(prefix)}
                return dataclasses.replace(checkpoint, tensors={**outside, **tensors}, prefix=prefix)
        level = [
            (f"{prefix}{head}", _under(head, tensors))
            for prefix, tensors in level
            for head in _heads(tensors)
        ]
    raise CheckpointError(
        f"{checkpoint.file} is of no layout known here ({', '.join(sorted(set(marks.values())))}), also without "
        f"prefixes; its first of {len(checkpoint.tensors)} keys are {list(checkpoint.tensors)[:3]}"
    )


def layout_of(checkpoint: Checkpoint) -> str:
    """Whose checkpoint an unwrapped one is.

    Raises:
        CheckpointError: nobody's that is known here.
    """
    layout = _layout(checkpoint.tensors, _marks())
    return layout if layout is not None else layout_of(unwrapped(checkpoint))


def _marks() -> dict[str, str]:
    """The layout of each beginning of a key that no other has."""
    marks = {OUR_MARK: OURS}
    return marks | {mark: layout.name for family in FAMILIES for layout in family.layouts for mark in layout.marks}


def _layout(keys: Iterable[str], marks: Mapping[str, str]) -> str | None:
    keys = list(keys)
    return next((layout for mark, layout in marks.items() if any(key.startswith(mark) for key in keys)), None)


def _under(head: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(head): value for key, value in tensors.items() if key.startswith(head)}


def _heads(tensors: Mapping[str, Tensor]) -> list[str]:
    """First parts of many keys, each with its dot; those of moving averages first, then the more frequent."""
    counts = Counter(key.partition(".")[0] + "." for key in tensors if "." in key)
    often = [head for head, count in counts.most_common() if count >= LEAST_SHARE * len(tensors)]
    return sorted(often, key=lambda head: "ema" not in head)

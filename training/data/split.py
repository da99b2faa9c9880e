"""Which pictures train and which validate: as the source says, or drawn so that every class is in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

VALIDATION_SHARE = 0.15
LEAST_VALIDATION = 2
SEED = 0


def draw_validation(
    classes: Sequence[frozenset[str]], groups: Sequence[str], share: float = VALIDATION_SHARE, seed: int = SEED
) -> list[bool]:
    """Whether each picture validates: about `share` of all, and of the pictures of each class, the rarest class first.

    Args:
        classes: the names of the classes in each picture.
        groups: pictures with the same text are the same picture, and stay on one side.
        share: in (0, 1).
        seed: of the draw.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    of_group = {group: frozenset().union(*(classes[index] for index in found)) for group, found in members.items()}
    order = [sorted(members)[place] for place in np.random.default_rng(seed).permutation(len(members))]
    chosen: set[str] = set()
    for name in _rarest_first(of_group):
        having = [group for group in order if name in of_group[group]]
        wanted = round(share * len(having)) or int(len(having) >= 2)
        free = [group for group in having if group not in chosen]
        chosen.update(free[: max(wanted - (len(having) - len(free)), 0)])
    wanted = min(max(round(share * len(order)), LEAST_VALIDATION), len(order) // 2)
    chosen.update([group for group in order if group not in chosen][: max(wanted - len(chosen), 0)])
    return [group in chosen for group in groups]


def _rarest_first(of_group: Mapping[str, frozenset[str]]) -> list[str]:
    counts = Counter(name for names in of_group.values() for name in names)
    return sorted(counts, key=lambda name: (counts[name], name))

"""What depth configurations by themselves, read from a file, say of the network that they are of."""

from __future__ import annotations

from collections.abc import Iterable

from anydepth_perception.depth.space import EXITS, DepthConfig, DepthSpace


def space_of(depths: Iterable[str]) -> DepthSpace:
    """The space of a network of which only some configurations are known, by their text; its stages have numbers.

    A stage has something to skip if one of the configurations skips it; where none skips anything, all have.

    Raises:
        ValueError: there are none, or they are of different networks.
        DepthConfigError: a text is malformed.
    """
    configs = [DepthConfig.parse(text) for text in depths]
    counts = {len(config.full_paths) for config in configs}
    if len(counts) != 1:
        found = ", ".join(map(str, sorted(counts))) or "no"
        raise ValueError(f"configurations of {found} stages; expected those of one network")
    stages = [f"stage {number}" for number in range(1, counts.pop() + 1)]
    skipped = {
        stage for config in configs for stage, full in zip(stages, config.full_paths, strict=True) if not full
    }
    num_exits = max(config.exit or 0 for config in configs)
    return DepthSpace.of([*stages, *([EXITS] if num_exits else [])], stages, skipped or stages, num_exits)

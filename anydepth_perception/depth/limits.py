"""Bounds of what may be chosen: no configuration shallower than one, none deeper than another."""

from __future__ import annotations

from dataclasses import dataclass

from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace


@dataclass(frozen=True)
class DepthLimits:
    """Between `least` and `most`, stage by stage and in the exit; empty texts bound nothing.

    A configuration is within when every stage that `least` runs in full is full in it, every stage that it runs in full
    is full in `most`, and its exit lies between theirs.
    """

    least: str = ""
    most: str = ""

    def within(self, space: DepthSpace, configs: list[DepthConfig]) -> list[DepthConfig]:
        """Those of `configs` that are allowed.

        Raises:
            DepthConfigError: a limit cannot be read, the network has no such configuration, or nothing is left.
        """
        least = space.parse(self.least) if self.least else None
        most = space.parse(self.most) if self.most else None
        found = [
            config for config in configs
            if (least is None or _is_below(least, config)) and (most is None or _is_below(config, most))
        ]
        if not found:
            raise DepthConfigError(
                f"no configuration is left between min_depth {self.least or '(none)'} and "
                f"max_depth {self.most or '(none)'}"
            )
        return found


def _is_below(lower: DepthConfig, upper: DepthConfig) -> bool:
    """Whether `upper` runs all that `lower` runs."""
    stages = all(full or not needed for needed, full in zip(lower.full_paths, upper.full_paths, strict=True))
    return stages and (lower.exit or 0) <= (upper.exit or 0)

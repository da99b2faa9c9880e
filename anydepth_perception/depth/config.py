"""Depth configurations: one path per stage, and for DETR the decoder exit that is read."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")
"""Stage names in execution order: four backbone stages, then four neck stages."""

NUM_BACKBONE_STAGES = 4

ESSENTIAL = "essential"
FULL = "full"

_PATTERN = re.compile(r"([EF]{4})\.([EF]{4})(?:\.d([0-9]+))?")
_EXPECTED = "'full', 'base' or a text like 'FFEE.FFEE' (with '.d4' for a decoder exit)"


class DepthConfigError(ValueError):
    """A depth configuration that cannot be read, or that the detector at hand does not have."""


def base_exit(num_exits: int) -> int | None:
    """Decoder exit of the base-net, ceil(2L/3) of L layers; None for a detector without a decoder."""
    return math.ceil(2 * num_exits / 3) if num_exits else None


@dataclass(frozen=True)
class DepthConfig:
    """One path per stage, in the order of `STAGES`, and the decoder exit (None without a decoder).

    `full_paths[i]` is True where stage i runs its full path (essential + refinement) and False
    where it runs the essential path alone. The text form is `FFEE.FFEE` or `FFEE.FFEE.d4`.
    """

    full_paths: tuple[bool, ...]
    exit: int | None = None

    def __post_init__(self) -> None:
        if len(self.full_paths) != len(STAGES):
            raise DepthConfigError(
                f"a depth configuration has {len(STAGES)} paths, one per stage of {STAGES}; "
                f"got {len(self.full_paths)}"
            )
        if self.exit is not None and self.exit < 1:
            raise DepthConfigError(f"decoder exit d{self.exit} is out of range: exits count from 1")

    @classmethod
    def full(cls, num_exits: int = 0) -> DepthConfig:
        """The super-net: every stage on its full path, the last of `num_exits` decoder exits."""
        return cls((True,) * len(STAGES), num_exits or None)

    @classmethod
    def base(cls, num_exits: int = 0) -> DepthConfig:
        """The base-net: every stage on its essential path, decoder exit ceil(2L/3)."""
        return cls((False,) * len(STAGES), base_exit(num_exits))

    @classmethod
    def parse(cls, text: str, num_exits: int = 0) -> DepthConfig:
        """Reads `full`, `base` or the text form, for a detector with `num_exits` decoder exits.

        With a decoder the exit may be left out; the last one is meant then.

        Raises:
            DepthConfigError: the text is malformed, or names an exit that the detector lacks.
        """
        if text == "full":
            return cls.full(num_exits)
        if text == "base":
            return cls.base(num_exits)
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise DepthConfigError(f"depth {text!r} is not a depth configuration; expected {_EXPECTED}")
        paths = tuple(letter == "F" for letter in match[1] + match[2])
        if match[3] is None:
            return cls(paths, num_exits or None)
        exit_index = int(match[3])
        if num_exits == 0:
            raise DepthConfigError(f"depth {text!r} names exit d{exit_index}, but this detector has no decoder")
        if not 1 <= exit_index <= num_exits:
            raise DepthConfigError(f"depth {text!r}: exit d{exit_index} is out of range, it has d1 to d{num_exits}")
        return cls(paths, exit_index)

    def __str__(self) -> str:
        letters = "".join("F" if full else "E" for full in self.full_paths)
        text = f"{letters[:NUM_BACKBONE_STAGES]}.{letters[NUM_BACKBONE_STAGES:]}"
        return text if self.exit is None else f"{text}.d{self.exit}"

    def path(self, stage: str) -> str:
        """`full` or `essential`, for a stage name of `STAGES`."""
        return FULL if self.full_paths[STAGES.index(stage)] else ESSENTIAL

    @property
    def depth_fraction(self) -> float:
        """Share of stages on their full path, in [0, 1]."""
        return sum(self.full_paths) / len(self.full_paths)


def all_configs(num_exits: int = 0) -> Iterator[DepthConfig]:
    """Every configuration: 2^8 mixtures of paths, times the decoder exits where there are any."""
    exits: tuple[int | None, ...] = tuple(range(1, num_exits + 1)) or (None,)
    for paths in itertools.product((False, True), repeat=len(STAGES)):
        for exit_index in exits:
            yield DepthConfig(paths, exit_index)

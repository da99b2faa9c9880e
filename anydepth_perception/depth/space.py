"""What a network is to the depth control: its entries in execution order, the ways through each, its configurations."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

ESSENTIAL, FULL = "essential", "full"
"""The two ways through a stage: full is essential and the refinement."""

ONLY = "only"
"""The way through an entry that has no other."""

EXITS = "exits"
"""The entry that stands for a decoder: its ways are the exits `d1` to `dL`."""

_LETTERS = re.compile(r"[EF]{1,4}")
_EXIT = re.compile(r"d([0-9]{1,9})")
_GROUP = 4


class DepthConfigError(ValueError):
    """A depth configuration that cannot be read, or that the detector at hand does not have."""


class DecisionPointError(ValueError):
    """Decision points that the network does not have, or that leave too many combinations between them."""


class Step(NamedTuple):
    """One way through one entry: `("p4", "full")`, `("exits", "d3")`, `("stem", "only")`."""

    entry: str
    way: str

    def __str__(self) -> str:
        return self.entry if self.way == ONLY else f"{self.entry}.{self.way}"


class Entry(NamedTuple):
    """Something that runs once per frame, and the ways through it, which are interchangeable."""

    name: str
    ways: tuple[str, ...] = (ONLY,)

    @property
    def is_stage(self) -> bool:
        """Whether a configuration has a letter for it, be it that there is nothing to skip."""
        return FULL in self.ways


@dataclass(frozen=True)
class DepthConfig:
    """What can be chosen about a frame: one path per stage and the decoder exit (None without a decoder).

    `full_paths[i]` is True where stage i of the network runs its full path and False where it runs the essential one.
    The text form has a letter per stage, a dot after every four, and the exit: `FFEE.FFEE`, `FFEE.FFEE.d4`. Which
    stages those are, and which exits there are, the network's `DepthSpace` says.
    """

    full_paths: tuple[bool, ...]
    exit: int | None = None

    def __post_init__(self) -> None:
        if not self.full_paths:
            raise DepthConfigError("a depth configuration has at least one path")
        if self.exit is not None and self.exit < 1:
            raise DepthConfigError(f"decoder exit d{self.exit} is out of range: exits count from 1")

    @classmethod
    def parse(cls, text: str) -> DepthConfig:
        """Reads the text form; whether a network has such a configuration is for `DepthSpace.parse` to say.

        Raises:
            DepthConfigError: the text is malformed.
        """
        parts = text.split(".")
        exit_part = _EXIT.fullmatch(parts[-1])
        letters = parts[:-1] if exit_part else parts
        if (
            not letters
            or not all(_LETTERS.fullmatch(part) for part in letters)
            or any(len(part) != _GROUP for part in letters[:-1])
        ):
            raise DepthConfigError(f"depth {_shown(text)} is not a depth configuration; expected {EXPECTED}")
        return cls(tuple(letter == "F" for letter in "".join(letters)), int(exit_part[1]) if exit_part else None)

    def __str__(self) -> str:
        letters = "".join("F" if full else "E" for full in self.full_paths)
        parts = [letters[start : start + _GROUP] for start in range(0, len(letters), _GROUP)]
        return ".".join(parts if self.exit is None else [*parts, f"d{self.exit}"])

    def __repr__(self) -> str:
        return f"DepthConfig({str(self)!r})"

    @property
    def depth_fraction(self) -> float:
        """Share of stages on their full path, in [0, 1]."""
        return sum(self.full_paths) / len(self.full_paths)


EXPECTED = "'full', 'base' or a text like 'FFEE.FFEE' (with '.d4' for a decoder exit)"
"""What a depth configuration may be written as, for messages."""


@dataclass(frozen=True)
class DepthSpace:
    """Entries in execution order and the ways through each: all that depth control has to know of a network.

    Attributes:
        entries: what runs, in execution order. A stage has the ways `essential` and `full`, or `full` alone where it
            has nothing to skip; `exits` has `d1` to `dL`; any other entry has one way, `only`.
        base_exit: the decoder exit of the base-net; ceil(2L/3) of L exits where it is not given.
    """

    entries: tuple[Entry, ...]
    base_exit: int | None = None
    _routes: dict[DepthConfig, tuple[Step, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"entry {name!r} is there twice")
        if not self.stages:
            raise ValueError(f"none of the entries {', '.join(names)} is a stage")
        for entry in self.entries:
            accepted: tuple[tuple[str, ...], ...] = ((ONLY,), (FULL,), (ESSENTIAL, FULL))
            if entry.name == EXITS:
                accepted = (tuple(f"d{number}" for number in range(1, len(entry.ways) + 1)),)
            if not entry.ways or entry.ways not in accepted:
                raise ValueError(f"entry {entry.name!r} has the ways {entry.ways}, expected one of {accepted}")
        if self.base_exit is None and self.num_exits:
            object.__setattr__(self, "base_exit", math.ceil(2 * self.num_exits / 3))
        if self.num_exits and not 1 <= (self.base_exit or 0) <= self.num_exits:
            raise ValueError(f"base exit d{self.base_exit} is out of range, there are d1 to d{self.num_exits}")

    @classmethod
    def of(
        cls, entries: Iterable[str], stages: Iterable[str], skippable: Iterable[str], num_exits: int = 0
    ) -> DepthSpace:
        """The space of a network by names.

        Args:
            entries: all entries in execution order; `exits` stands for the decoder.
            stages: those that are stages.
            skippable: those of the stages that have an essential path shorter than their full one.
            num_exits: decoder exits, 0 without a decoder.
        """
        stages, skippable = set(stages), set(skippable)

        def ways(name: str) -> tuple[str, ...]:
            if name == EXITS:
                return tuple(f"d{number}" for number in range(1, num_exits + 1))
            return (ESSENTIAL, FULL) if name in skippable else (FULL,) if name in stages else (ONLY,)

        return cls(tuple(Entry(name, ways(name)) for name in entries))

    def __repr__(self) -> str:
        shown = [f"{entry.name}[{'|'.join(entry.ways)}]" if entry.ways != (ONLY,) else entry.name
                 for entry in self.entries]
        return f"DepthSpace({', '.join(shown)})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the entries, in execution order."""
        return tuple(entry.name for entry in self.entries)

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in execution order: the letters of a configuration."""
        return tuple(entry.name for entry in self.entries if entry.is_stage)

    @cached_property
    def skippable(self) -> tuple[str, ...]:
        """Names of the stages that have an essential path shorter than their full one."""
        return tuple(entry.name for entry in self.entries if ESSENTIAL in entry.ways)

    @cached_property
    def num_exits(self) -> int:
        """Number of decoder exits, 0 without a decoder."""
        return next((len(entry.ways) for entry in self.entries if entry.name == EXITS), 0)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every way through every entry, in execution order; of a stage the essential path comes first."""
        return tuple(Step(entry.name, way) for entry in self.entries for way in entry.ways)

    @cached_property
    def full(self) -> DepthConfig:
        """The super-net: every stage on its full path, the last exit."""
        return DepthConfig((True,) * len(self.stages), self.num_exits or None)

    @cached_property
    def base(self) -> DepthConfig:
        """The base-net: every stage that can skip on its essential path, exit `base_exit`."""
        return self.with_full(set(self.stages) - set(self.skippable), self.base_exit)

    def all(self) -> Iterator[DepthConfig]:
        """Every configuration, each once: the mixtures of paths of the stages that can skip, times the exits."""
        choices = [(False, True) if stage in self.skippable else (True,) for stage in self.stages]
        exits: Sequence[int | None] = range(1, self.num_exits + 1) if self.num_exits else (None,)
        for paths, exit_number in itertools.product(itertools.product(*choices), exits):
            yield DepthConfig(paths, exit_number)

    def with_full(self, stages: Iterable[str], exit_number: int | None = None) -> DepthConfig:
        """The configuration with the named stages on their full path and all others on their essential one."""
        chosen = set(stages)
        return DepthConfig(tuple(stage in chosen for stage in self.stages), exit_number)

    def parse(self, text: str) -> DepthConfig:
        """Reads `full`, `base` or the text form. The exit may be left out; the last one is meant then.

        A stage with nothing to skip runs its full path, whatever its letter.

        Raises:
            DepthConfigError: the text is malformed, or names stages or an exit that the network lacks.
        """
        if text == "full":
            return self.full
        if text == "base":
            return self.base
        config = DepthConfig.parse(text)
        if config.exit is None and self.num_exits:
            config = DepthConfig(config.full_paths, self.num_exits)
        self.check(config)
        return self.executed(config)

    def check(self, config: DepthConfig) -> None:
        """Refuses a configuration of another network.

        Raises:
            DepthConfigError: it has another number of stages, an exit that is not there, or lacks one that is needed.
        """
        if len(config.full_paths) != len(self.stages):
            raise DepthConfigError(
                f"depth {config} has {len(config.full_paths)} stages, this network has {len(self.stages)}: "
                f"{', '.join(self.stages)}"
            )
        if self.num_exits == 0 and config.exit is not None:
            raise DepthConfigError(f"depth {config} names exit d{config.exit}, but this network has no decoder exits")
        if self.num_exits and config.exit is None:
            raise DepthConfigError(f"depth {config} needs a decoder exit, d1 to d{self.num_exits}")
        if self.num_exits and not 1 <= (config.exit or 0) <= self.num_exits:
            raise DepthConfigError(f"depth {config}: exit d{config.exit} is out of range, d1 to d{self.num_exits}")

    def executed(self, config: DepthConfig) -> DepthConfig:
        """What really runs for `config`: the full path of stages that have nothing to skip."""
        paths = zip(self.stages, config.full_paths, strict=True)
        return DepthConfig(tuple(full or stage not in self.skippable for stage, full in paths), config.exit)

    def path(self, config: DepthConfig, stage: str) -> str:
        """`essential` or `full`, for one of `stages`."""
        return FULL if config.full_paths[self.stages.index(stage)] or stage not in self.skippable else ESSENTIAL

    def route(self, config: DepthConfig) -> tuple[Step, ...]:
        """The steps that run for `config`, one per entry, in execution order.

        Raises:
            DepthConfigError: the network has no such configuration.
        """
        known = self._routes.get(config)
        if known is not None:
            return known
        self.check(config)
        paths = iter(config.full_paths)
        steps = []
        for entry in self.entries:
            way = entry.ways[-1]
            if entry.is_stage:
                way = entry.ways[-1] if next(paths) else entry.ways[0]
            elif entry.name == EXITS:
                way = f"d{config.exit}"
            steps.append(Step(entry.name, way))
        route = self._routes[config] = tuple(steps)
        return route

    def config(self, steps: Iterable[Step]) -> DepthConfig:
        """The configuration that takes `steps`; where they say nothing, that of the base-net."""
        ways = dict(self.route(self.base))
        ways.update(steps)
        exit_number = int(ways[EXITS][1:]) if self.num_exits else None
        return self.with_full([stage for stage in self.stages if ways[stage] == FULL], exit_number)

    def total(self, costs: Mapping[Step, float], config: DepthConfig) -> float:
        """Sum of the costs of all steps that run for `config`."""
        # fsum: mixtures of the same cost compare equal, in whatever order the cost adds up.
        return math.fsum(costs[step] for step in self.route(config))

    def groups(self, points: Iterable[str]) -> tuple[tuple[str, ...], ...]:
        """The entries cut before each of the decision points `points`; the start is one always.

        Raises:
            DecisionPointError: a point is not an entry.
        """
        starts = {0}
        for point in points:
            if point not in self.names:
                raise DecisionPointError(f"decision point {point!r} is not one of {', '.join(self.names)}")
            starts.add(self.names.index(point))
        bounds = [*sorted(starts), len(self.names)]
        return tuple(self.names[a:b] for a, b in itertools.pairwise(bounds))

    @cached_property
    def default_points(self) -> tuple[str, ...]:
        """Where to decide within a frame, beside its start; of four backbone and four neck stages at three points.

        Without a decoder before every other stage from the third on: before p4, the top-down and the bottom-up path.
        With one before every third, p4 and fpn_p3, and before the decoder's layers. That is behind query selection,
        which is the same at any exit: the later the decision, the better informed.
        """
        found = (*self.stages[2::3], EXITS) if self.num_exits else self.stages[2::2]
        return tuple(name for name in found if name != self.names[0])

    def completions(self, boundary: str, prefix: DepthConfig) -> Iterator[DepthConfig]:
        """Every configuration that has run as `prefix` did when `boundary`, the next entry, is reached.

        Raises:
            DecisionPointError: `boundary` is not an entry.
        """
        if boundary not in self.names:
            raise DecisionPointError(f"decision point {boundary!r} is not one of {', '.join(self.names)}")
        done = self.names.index(boundary)
        ran = self.route(prefix)[:done]
        return (config for config in self.all() if self.route(config)[:done] == ran)


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:77]!r}..."

"""The plan of staged execution: groups between decision points, their variants, and the tensors between them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.bundle.manifest import Manifest, Segment, TensorSpec
from anydepth_perception.depth.config import NUM_BACKBONE_STAGES, STAGES, DepthConfig
from anydepth_perception.depth.space import EXITS
from anydepth_perception.execution.memory import Life

MAX_VARIANTS = 64
"""Engines that one group may need; five stages have 32 combinations of paths, eight have 256."""

Choice = tuple[bool | int | None, ...]
"""What a group needs to know of a configuration: the paths of its stages and, where it holds the exits, the exit."""


class DecisionPointError(ValueError):
    """Decision points that the bundle does not have, or that leave too many combinations between them."""


@dataclass(frozen=True)
class Variant:
    """One combination of paths through a group: what is compiled into one engine."""

    choice: Choice
    segments: tuple[Segment, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its segments, for errors."""
        return "+".join(segment.name for segment in self.segments)


@dataclass(frozen=True)
class Group:
    """Consecutive entries of the pipeline that run without a decision between them."""

    entries: tuple[str, ...]

    @property
    def point(self) -> str:
        """The decision point before the group: the entry it starts with."""
        return self.entries[0]

    def choice(self, config: DepthConfig) -> Choice:
        """What `config` says about this group; configurations that say the same run the same engine here."""
        paths = config.full_paths
        choice = tuple([paths[index] for index in self._stage_indices])
        return (*choice, config.exit) if self._holds_exits else choice

    @cached_property
    def _holds_exits(self) -> bool:
        return EXITS in self.entries

    @cached_property
    def _stage_indices(self) -> tuple[int, ...]:
        return tuple(STAGES.index(entry) for entry in self.entries if entry in STAGES)


@dataclass(frozen=True)
class Plan:
    """Groups in execution order, the variants of each, and the lives of the tensors between groups.

    Steps of lives are indices of groups. The raw outputs live one step longer: the host reads them. The image
    is not among them, because its padding outlasts the frame.
    """

    groups: tuple[Group, ...]
    variants: tuple[tuple[Variant, ...], ...]
    lives: tuple[Life, ...]


def default_decision_points(manifest: Manifest) -> tuple[str, ...]:
    """After the fourth backbone stage but one (p4), before the bottom-up path, before the decoder or head.

    The start is a decision point always. Before the decoder means behind query selection, which is the same at any
    exit: the later the decision, the better informed.
    """
    after_p4 = manifest.space.names[manifest.space.names.index(STAGES[NUM_BACKBONE_STAGES - 2]) + 1]
    last = EXITS if EXITS in manifest.space.names else manifest.space.names[-1]
    return tuple(dict.fromkeys((after_p4, "pan_p4", last)))


def make_plan(manifest: Manifest, decision_points: Sequence[str]) -> Plan:
    """Plans staged execution with a decision at the start and before each entry of `decision_points`.

    Raises:
        DecisionPointError: a point is no entry of the pipeline, or a group has more than `MAX_VARIANTS` variants.
        BundleError: a group writes nothing that is read later.
    """
    groups = split(manifest.space.names, decision_points)
    routes = [_routes(manifest, group) for group in groups]
    lives = find_lives([[route for _, route in alternatives] for alternatives in routes], _results(manifest))
    crossing = {life.spec.name for life in lives}
    return Plan(
        groups=groups,
        variants=tuple(
            tuple(Variant(choice, segments, _crossing_outputs(segments, crossing)) for choice, segments in alternatives)
            for alternatives in routes
        ),
        lives=tuple(lives),
    )


def covering_configs(
    plan: Plan, bundle: Bundle, variants: Collection[str], preferred: Sequence[DepthConfig] = ()
) -> list[DepthConfig]:
    """Configurations that between them run every variant named in `variants`: of `preferred` as far as they help."""
    missing = [
        {variant.choice: variant.name for variant in alternatives if variant.name in variants}
        for alternatives in plan.variants
    ]
    chosen: list[DepthConfig] = []

    def add(config: DepthConfig) -> bool:
        """Takes `config` if it runs a variant that is missing; then that is missing no more."""
        names = {left.get(group.choice(config)) for group, left in zip(plan.groups, missing, strict=True)} - {None}
        for index, left in enumerate(missing):
            missing[index] = {choice: name for choice, name in left.items() if name not in names}
        if names:
            chosen.append(config)
        return bool(names)

    for config in preferred:
        add(config)
    while any(missing):
        add(_merge(plan.groups, [next(iter(left), None) for left in missing], bundle.base))
    return chosen


def _merge(groups: Sequence[Group], choices: Sequence[Choice | None], base: DepthConfig) -> DepthConfig:
    """The configuration that makes the given choice in each group, and that of `base` where it is None."""
    paths, exit_index = list(base.full_paths), base.exit
    for group, choice in zip(groups, choices, strict=True):
        if choice is not None:
            stages = [entry for entry in group.entries if entry in STAGES]
            for stage, path in zip(stages, choice, strict=False):
                paths[STAGES.index(stage)] = bool(path)
            if len(choice) > len(stages):
                exit_index = choice[-1]
    return DepthConfig(tuple(paths), exit_index)


def split(pipeline: Sequence[str], decision_points: Sequence[str]) -> tuple[Group, ...]:
    """Cuts the pipeline before each decision point.

    Raises:
        DecisionPointError: a point is no entry of the pipeline.
    """
    for point in decision_points:
        if point not in pipeline:
            raise DecisionPointError(f"decision point {point!r} is not one of {', '.join(pipeline)}")
    starts = sorted({0, *(pipeline.index(point) for point in decision_points)})
    return tuple(Group(tuple(pipeline[a:b])) for a, b in zip(starts, [*starts[1:], len(pipeline)], strict=True))


def find_lives(alternatives: Sequence[Sequence[Sequence[Segment]]], results: Sequence[str]) -> list[Life]:
    """Lives of the tensors that cross from one group to a later one, and of `results`, which live to the end.

    Args:
        alternatives: per group, the segments of each way through it.
        results: tensors that are read after the last group.
    """
    specs: dict[str, TensorSpec] = {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, routes in enumerate(alternatives):
        for segment in itertools.chain.from_iterable(routes):
            for spec in segment.inputs:
                if spec.name in first:
                    last[spec.name] = step
            for spec in segment.outputs:
                specs.setdefault(spec.name, spec)
                first.setdefault(spec.name, step)
    last.update({name: len(alternatives) for name in results})
    return [Life(specs[name], first[name], end) for name, end in last.items() if end > first[name]]


def _routes(manifest: Manifest, group: Group) -> list[tuple[Choice, tuple[Segment, ...]]]:
    choices = list(_choices(manifest, group))
    if len(choices) > MAX_VARIANTS:
        raise DecisionPointError(
            f"{len(choices)} combinations of paths from {group.entries[0]} to {group.entries[-1]}, at most "
            f"{MAX_VARIANTS} are compiled; put a decision point between them"
        )
    return [(group.choice(config), tuple(_segments(manifest, group, config))) for config in choices]


def _choices(manifest: Manifest, group: Group) -> Iterator[DepthConfig]:
    """One configuration for each combination in the group; stages outside are on their essential path."""
    options = [(False, True) if stage in group.entries else (False,) for stage in STAGES]
    exits: Sequence[int | None] = tuple(manifest.exits) if EXITS in group.entries else (None,)
    for paths, exit_index in itertools.product(itertools.product(*options), exits):
        yield DepthConfig(paths, exit_index)


def _segments(manifest: Manifest, group: Group, config: DepthConfig) -> Iterator[Segment]:
    for entry in group.entries:
        if entry in manifest.stages:
            yield manifest.segments[manifest.stages[entry][config.path(entry)]]
        elif entry == EXITS and config.exit is not None:
            yield from (manifest.segments[name] for name in manifest.exits[config.exit])
        else:
            yield manifest.segments[entry]


def _results(manifest: Manifest) -> tuple[str, str]:
    return manifest.outputs.boxes, manifest.outputs.logits


def _crossing_outputs(segments: Sequence[Segment], crossing: set[str]) -> tuple[str, ...]:
    names = tuple(spec.name for segment in segments for spec in segment.outputs if spec.name in crossing)
    if not names:
        listed = ", ".join(segment.name for segment in segments)
        raise BundleError(f"segments {listed} write nothing that is read later")
    return names

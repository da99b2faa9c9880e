"""Traces: what every step of every frame would have taken, made up or derived from recorded times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from anydepth_perception.depth.space import ESSENTIAL, EXITS, FULL, ONLY, DepthConfig, DepthSpace, Entry, Step

MULTIPLIED = 1.8
"""A recorded entry took its profiled time times a slowdown of at most this much; what is beyond is a stall, which takes
the same milliseconds at any depth (a process that was preempted)."""


class TraceError(ValueError):
    """A file of recorded times that cannot be replayed; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Network:
    """What a controller is told of a network: its space, profiled milliseconds, and AP of all configurations."""

    space: DepthSpace
    step_ms: Mapping[Step, float]
    preprocess_ms: float
    postprocess_ms: float
    average_precision: Mapping[DepthConfig, float]

    @cached_property
    def configs(self) -> tuple[DepthConfig, ...]:
        """All configurations."""
        return tuple(self.average_precision)

    @cached_property
    def values(self) -> np.ndarray:
        """AP of `configs`, float64 [configs]."""
        return np.array([self.average_precision[config] for config in self.configs])

    @cached_property
    def runs(self) -> np.ndarray:
        """1 where a configuration runs a step of the space, else 0; float64 [configs, steps]."""
        index = {step: number for number, step in enumerate(self.space.steps)}
        runs = np.zeros((len(self.configs), len(index)))
        for row, config in zip(runs, self.configs, strict=True):
            row[[index[step] for step in self.space.route(config)]] = 1.0
        return runs


@dataclass(frozen=True)
class Trace:
    """Frames with their true times in milliseconds.

    Attributes:
        name: of the kind of load, or of the file.
        network: what a controller may know.
        step_ms: float64 [frames, steps], of all steps of `network.space`.
        preprocess_ms: float64 [frames].
        postprocess_ms: float64 [frames].
        load_steps: indices of frames with which the load rises, where known.
        measured_full_ms: times of the frames that really ran at full depth, where it was recorded.
    """

    name: str
    network: Network
    step_ms: np.ndarray
    preprocess_ms: np.ndarray
    postprocess_ms: np.ndarray
    load_steps: tuple[int, ...] = ()
    measured_full_ms: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.preprocess_ms)

    @cached_property
    def column(self) -> Mapping[Step, int]:
        """Column of `step_ms` of each step."""
        return {step: index for index, step in enumerate(self.network.space.steps)}

    @cached_property
    def total_ms(self) -> np.ndarray:
        """What each frame would have taken at each configuration, float64 [frames, configs]."""
        host_ms = self.preprocess_ms + self.postprocess_ms
        return self.step_ms @ self.network.runs.T + host_ms[:, None]

    def frame_ms(self, config: DepthConfig) -> np.ndarray:
        """What each frame would have taken at `config`, float64 [frames]."""
        return np.asarray(self.total_ms[:, self.network.configs.index(config)])


PERCENTILES = (50, 75, 90, 97)
"""Of the time at full depth: the deadlines that a trace is replayed with."""


def measured_percentiles(trace: Trace) -> dict[int, float]:
    """Deadlines of interest, milliseconds: percentiles of the time at full depth, as measured where it was."""
    full_ms = trace.measured_full_ms
    full_ms = trace.frame_ms(trace.network.space.full) if full_ms is None else full_ms
    return {percentile: float(np.percentile(full_ms, percentile)) for percentile in PERCENTILES}


def actual_times(network: Network, slowdown: np.ndarray, stall_ms: np.ndarray) -> np.ndarray:
    """Times of all steps from the slowdowns and stalls of entries.

    Args:
        network: with the true times of an idle machine.
        slowdown: of each entry in each frame, float64 [frames, entries].
        stall_ms: milliseconds that the entry lost, whatever it ran, float64 [frames, entries].
    """
    names = network.space.names
    entry_of = [names.index(step.entry) for step in network.space.steps]
    profiled = np.array([network.step_ms[step] for step in network.space.steps])
    return np.asarray(profiled * slowdown[:, entry_of] + stall_ms[:, entry_of])


def read_trace(path: Path) -> Trace:
    """Reads times that the node or `tools.record_times` recorded (NumPy's .npz; docs/control.md lists the arrays).

    Raises:
        TraceError: the file is missing, damaged or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    try:
        return _trace(path, arrays)
    except KeyError as error:
        raise TraceError(f"{path}: lacks the array {error.args[0]!r}; record it again") from error
    except ValueError as error:
        raise TraceError(f"{path}: {error}") from error


def _trace(path: Path, arrays: Mapping[str, np.ndarray]) -> Trace:
    steps = [_step(str(text)) for text in arrays["steps"]]
    space = _space(steps)
    configs = [space.parse(str(text)) for text in arrays["configurations"]]
    step_ms = dict(zip(steps, map(float, arrays["step_ms"]), strict=True))
    precision = dict(zip(configs, map(float, arrays["average_precision"]), strict=True))
    pre_ms, post_ms = _finite(arrays, "preprocess_ms"), _finite(arrays, "postprocess_ms")
    entry_ms, frame_ms = _finite(arrays, "entry_ms"), _finite(arrays, "frame_ms")
    network = Network(space, step_ms, float(np.median(pre_ms)), float(np.median(post_ms)), precision)
    # A column is an entry, or a group of entries that ran as one engine, named by its first entry.
    names = [str(name) for name in arrays["entries"]]
    if unknown := [name for name in names if name not in space.names]:
        raise ValueError(f"{unknown[0]!r} of entries is not in steps")
    firsts = [space.names.index(name) for name in names]
    column = np.searchsorted(firsts, range(len(space.names)), side="right") - 1
    ran_ms = np.zeros_like(entry_ms)
    for text in np.unique(arrays["configuration"]):
        frames = arrays["configuration"] == text
        for index, step in enumerate(space.route(space.parse(str(text)))):
            ran_ms[frames, column[index]] += step_ms[step]
    if not (ran_ms > 0.0).all():
        raise ValueError("a profiled time of step_ms is 0 or less")
    slowdown = np.minimum(entry_ms / ran_ms, MULTIPLIED)
    stall_ms = entry_ms - ran_ms * slowdown
    first_of_column = np.isin(np.arange(len(space.names)), firsts)
    spread = actual_times(network, slowdown[:, column], stall_ms[:, column] * first_of_column)
    rest_ms = np.maximum(0.0, frame_ms - entry_ms.sum(axis=1) - pre_ms - post_ms)
    full_ms = frame_ms[arrays["configuration"] == str(space.full)]
    return Trace(
        path.stem, network, spread, pre_ms, post_ms + rest_ms, measured_full_ms=full_ms if len(full_ms) else None
    )


def _finite(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    found = arrays[name].astype(np.float64)
    if not np.isfinite(found).all() or (found < 0.0).any():
        raise ValueError(f"{name} holds a time that is negative or not finite")
    return found


def _step(text: str) -> Step:
    entry, _, way = text.rpartition(".")
    if way in (ESSENTIAL, FULL) or (entry == EXITS and way.startswith("d")):
        return Step(entry, way)
    return Step(text, ONLY)


def _space(steps: list[Step]) -> DepthSpace:
    ways: dict[str, list[str]] = {}
    for step in steps:
        ways.setdefault(step.entry, []).append(step.way)
    return DepthSpace(tuple(Entry(name, tuple(found)) for name, found in ways.items()))

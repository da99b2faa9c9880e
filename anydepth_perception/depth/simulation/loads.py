"""Made-up loads: seven kinds of what other work does to a detector with eight stages and six decoder exits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from anydepth_perception.depth.simulation.trace import Network, Trace, actual_times
from anydepth_perception.depth.space import EXITS, FULL, DepthSpace, Step

PERIOD_MS = 100.0 / 3.0
"""Of the camera, 30 Hz."""

DEADLINE_MS = 33.0
PROFILE_ERROR = 0.05
"""Standard deviation of ln(profiled / true) of a step."""

NOISE = 0.02
"""Standard deviation of ln(time) of a frame, and again of each entry in it."""

_STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")
_NAMES = ("stem", "p2", "p3", "p4", "p5", "aifi", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5", "selection", EXITS)
_ONLY_MS = {"stem": 1.2, "aifi": 0.6, "selection": 1.44}
_STAGE_MS = {
    "p2": (1.08, 1.8), "p3": (1.44, 2.4), "p4": (2.04, 3.96), "p5": (1.44, 2.28),
    "fpn_p4": (0.6, 1.2), "fpn_p3": (1.08, 2.16), "pan_p4": (0.48, 1.08), "pan_p5": (0.36, 0.84),
}
_FIRST_EXIT_MS, _EXIT_MS = 1.4, 1.164
_PREPROCESS_MS, _POSTPROCESS_MS = 1.44, 0.72
_BASE_AP = 48.8
_STAGE_AP = {"p2": 0.3, "p3": 0.5, "p4": 0.9, "p5": 0.5, "fpn_p4": 0.4, "fpn_p3": 0.5, "pan_p4": 0.3, "pan_p5": 0.2}
_EXIT_AP = (-8.0, -3.0, -1.0, 0.0, 0.5, 0.9)
"""Base has 48.8 AP at exit 4 and full 53.3 at exit 6, as AnyDepth-DETR R50 has; how it divides is our guess."""

Curve = Callable[[np.ndarray], np.ndarray]


def network() -> Network:
    """A detector like AnyDepth-DETR R50 on an embedded GPU: base takes 18 ms, full 28 ms, on an idle machine."""
    space = DepthSpace.of(_NAMES, _STAGES, _STAGES, len(_EXIT_AP))
    step_ms = {}
    for step in space.steps:
        if step.entry == EXITS:
            step_ms[step] = _FIRST_EXIT_MS + _EXIT_MS * (int(step.way[1:]) - 1)
        elif step.entry in _STAGE_MS:
            step_ms[step] = _STAGE_MS[step.entry][step.way == FULL]
        else:
            step_ms[step] = _ONLY_MS[step.entry]
    precision = {}
    for config in space.all():
        gains = [_STAGE_AP[step.entry] for step in space.route(config) if step.entry in _STAGE_AP and step.way == FULL]
        precision[config] = (_BASE_AP + math.fsum(gains) + _EXIT_AP[(config.exit or 1) - 1]) / 100.0
    return Network(space, step_ms, _PREPROCESS_MS, _POSTPROCESS_MS, precision)


def synthetic(kind: str, seed: int, frames: int = 2500) -> Trace:
    """Frames under one of `KINDS`; a controller is told times that are off by `PROFILE_ERROR`."""
    true = network()
    rng = np.random.default_rng([seed, tuple(KINDS).index(kind)])
    route = true.space.route(true.space.full)
    offsets = np.cumsum([true.preprocess_ms, *(true.step_ms[step] for step in route[:-1])])
    at_ms = np.arange(frames)[:, None] * PERIOD_MS + offsets[None, :]
    slowdown, stall_ms, rises = KINDS[kind](rng, at_ms)
    slowdown = slowdown * np.exp(rng.normal(0.0, NOISE, (frames, 1)) + rng.normal(0.0, NOISE, at_ms.shape))
    host = np.exp(rng.normal(0.0, 0.05, (2, frames)))
    return Trace(
        kind,
        _profiled(true, rng),
        actual_times(true, slowdown, stall_ms),
        true.preprocess_ms * slowdown[:, 0] * host[0],
        true.postprocess_ms * slowdown[:, -1] * host[1],
        tuple(sorted({frame for frame in rises if frame < frames})),
    )


def _profiled(true: Network, rng: np.random.Generator) -> Network:
    error = np.exp(rng.normal(0.0, PROFILE_ERROR, len(true.space.steps)))
    step_ms = {step: true.step_ms[step] * float(factor) for step, factor in zip(true.space.steps, error, strict=True)}
    for entry in true.space.entries:  # a profile never says that doing more takes less
        for less, more in zip(entry.ways, entry.ways[1:], strict=False):
            step_ms[Step(entry.name, more)] = max(step_ms[Step(entry.name, more)], step_ms[Step(entry.name, less)])
    return Network(true.space, step_ms, true.preprocess_ms, true.postprocess_ms, true.average_precision)


Load = tuple[np.ndarray, np.ndarray, list[int]]
"""Slowdown and lost milliseconds [frames, entries], and the frames with which the load rises."""


def _steady(rng: np.random.Generator, at_ms: np.ndarray) -> Load:
    return np.full(at_ms.shape, 1.1), np.zeros(at_ms.shape), []


def _steps(rng: np.random.Generator, at_ms: np.ndarray) -> Load:
    levels, rises = _levels(rng, len(at_ms), 1.6, 60.0)
    return levels * np.ones(at_ms.shape), np.zeros(at_ms.shape), rises


def _bursts(rng: np.random.Generator, at_ms: np.ndarray) -> Load:
    factor, rises = _burst_curve(rng, at_ms, 2.1, 3000.0, 900.0)
    return 1.05 * factor, np.zeros(at_ms.shape), rises


def _thermal(rng: np.random.Generator, at_ms: np.ndarray) -> Load:
    return _thermal_curve(rng, at_ms, 0.6), np.zeros(at_ms.shape), []


def _cotenant(rng: np.random.Generator, at_ms: np.ndarray) -> Load:
    return 1.05 * _cotenant_curve(rng, at_ms, 1.5), np.zeros(at_ms.shape), []


def _stalls(rng: np.random.Generator, at_ms: np.ndarray) -> Load:
    return np.full(at_ms.shape, 1.15), _stall_ms(rng, at_ms.shape, 0.04), []


def _mixed(rng: np.random.Generator, at_ms: np.ndarray) -> Load:
    levels, rises = _levels(rng, len(at_ms), 1.3, 90.0)
    bursts, more_rises = _burst_curve(rng, at_ms, 1.5, 5000.0, 600.0)
    slowdown = levels * np.sqrt(_thermal_curve(rng, at_ms, 0.3)) * bursts * np.sqrt(_cotenant_curve(rng, at_ms, 1.2))
    return slowdown, _stall_ms(rng, at_ms.shape, 0.015), rises + more_rises


KINDS: dict[str, Callable[[np.random.Generator, np.ndarray], Load]] = {
    "steady": _steady, "steps": _steps, "bursts": _bursts, "thermal": _thermal, "cotenant": _cotenant,
    "stalls": _stalls, "mixed": _mixed,
}
"""Steady; steps between 1 and 1.6; bursts up to 2.2; slow heating with a sawtooth; a co-tenant at 7 Hz, within frames;
heavy-tailed stalls; and all of these, weaker."""


def _levels(rng: np.random.Generator, frames: int, highest: float, dwell: float) -> tuple[np.ndarray, list[int]]:
    levels, rises, first, level = np.empty((frames, 1)), [], 0, float(rng.uniform(1.0, highest))
    while first < frames:
        last = first + int(rng.exponential(dwell)) + 15
        levels[first:last] = level
        before, level, first = level, float(rng.uniform(1.0, highest)), last
        if level > 1.05 * before:
            rises.append(first)
    return levels, rises


def _burst_curve(
    rng: np.random.Generator, at_ms: np.ndarray, peak: float, every_ms: float, longest_ms: float
) -> tuple[np.ndarray, list[int]]:
    factor, rises = np.ones(at_ms.shape), []
    start = float(rng.exponential(every_ms))
    while start < at_ms[-1, -1]:
        length = float(rng.uniform(100.0, longest_ms))
        factor[(at_ms >= start) & (at_ms < start + length)] = rng.uniform(1.2, peak)
        rises.append(math.ceil(start / PERIOD_MS))
        start += length + float(rng.exponential(every_ms))
    return factor, rises


def _thermal_curve(rng: np.random.Generator, at_ms: np.ndarray, most: float) -> np.ndarray:
    phase = (at_ms / rng.uniform(25e3, 40e3) + rng.uniform()) % 1.0
    heating = most * np.clip(1.4 * phase, 0.0, 1.0) * (phase < 0.95)
    throttling = 0.15 * ((at_ms / 2.5e3) % 1.0) * (phase > 0.5)
    return np.asarray(1.0 + heating + throttling)


def _cotenant_curve(rng: np.random.Generator, at_ms: np.ndarray, factor: float) -> np.ndarray:
    phase = (7e-3 * at_ms + rng.uniform()) % 1.0
    return np.where(phase < 0.4, factor, 1.0)


def _stall_ms(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    stall_ms = np.zeros(shape)
    for frame in np.flatnonzero(rng.random(shape[0]) < share):
        stall_ms[frame, rng.integers(shape[1])] = min(50.0, 3.0 * rng.random() ** (-1.0 / 1.5))  # Pareto
    return stall_ms

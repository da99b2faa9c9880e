"""Cameras and one worker in simulated time: what the scheduler does with them, event by event."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anydepth_perception.serving.scheduler import Budget, NewestFrames, PendingFrame

Service = Callable[[float | None, float], float]
"""Milliseconds that a frame with a budget (milliseconds, None without) takes, begun at a time (seconds)."""


@dataclass(frozen=True)
class SimulatedCamera:
    """Sends frames at a period; its clock may be behind. Seconds, but for the deadline; 0 is no deadline."""

    deadline_ms: float = 90.0
    period_s: float = 0.1
    phase_s: float = 0.0
    jitter_s: float = 0.004
    transport_s: float = 0.004
    behind_s: float = 0.0


@dataclass(frozen=True)
class Served:
    """A frame that was served: `number` counts the camera's frames, `in_time` is by its stamp."""

    camera: int
    number: int
    taken_s: float
    done_s: float
    in_time: bool
    budget: Budget


def simulate(
    cameras: Sequence[SimulatedCamera],
    service: Service,
    *,
    seconds: float,
    is_hopeless: Callable[[float], bool],
    seed: int = 0,
    shares: bool = True,
) -> list[Served]:
    """The frames that one worker serves, in order. `shares` False leaves out what other frames need."""
    arrivals = _arrivals(cameras, seconds, np.random.default_rng(seed))
    frames: NewestFrames[int] = NewestFrames(len(cameras))
    served: list[Served] = []
    now_s, following = 0.0, 0
    while True:
        while following < len(arrivals) and arrivals[following].arrival_s <= now_s:
            frames.put(arrivals[following])
            following += 1
        frame = frames.take()
        if frame is None:
            if following == len(arrivals):
                return served
            now_s = arrivals[following].arrival_s
            continue
        own_ms = (frame.deadline_s - now_s) * 1e3 if math.isfinite(frame.deadline_s) else None
        budget = Budget(own_ms, frames.shared_budget_ms(now_s, is_hopeless) if shares else None)
        done_s = now_s + service(budget.ms, now_s) * 1e-3
        served.append(Served(frame.camera, frame.message, now_s, done_s, done_s <= frame.deadline_s, budget))
        now_s = done_s


def _arrivals(
    cameras: Sequence[SimulatedCamera], seconds: float, generator: np.random.Generator
) -> list[PendingFrame[int]]:
    frames = []
    for index, camera in enumerate(cameras):
        for number in range(round(seconds / camera.period_s)):
            transport_s = camera.transport_s + generator.uniform(0.0, camera.jitter_s)
            age_s = transport_s + camera.behind_s
            arrival_s = camera.phase_s + number * camera.period_s + transport_s
            deadline_s = arrival_s - age_s + camera.deadline_ms * 1e-3 if camera.deadline_ms else math.inf
            frames.append(PendingFrame(index, number, arrival_s, age_s, deadline_s))
    return sorted(frames, key=lambda frame: frame.arrival_s)

"""A run of the demo: what was asked for, and what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anydepth_perception.depth.space import DepthSpace
from anydepth_perception.tools.demo.recorder import Recording, ServedFrame


@dataclass(frozen=True)
class DemoOptions:
    """What the command line and the environment ask for."""

    seconds: float
    output: Path
    model: str
    rate_hz: float
    width: int
    height: int
    seed: int
    score_threshold: float


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Attributes:
        recording: what was received.
        start_ns: stamp that time 0 stands for.
        seconds: length of the run.
        load_s: start and end of the load, seconds from the start.
        deadline_ms: of the detector.
        rate_hz: of the camera.
        cpu: (seconds from the start, share of all CPUs that was busy) of samples.
        class_names: of the detector.
        space: of the detector's network.
    """

    recording: Recording
    start_ns: int
    seconds: float
    load_s: tuple[float, float]
    deadline_ms: float
    rate_hz: float
    cpu: Sequence[tuple[float, float]]
    class_names: tuple[str, ...]
    space: DepthSpace

    def time_s(self, stamp_ns: int) -> float:
        """Seconds from the start of the run."""
        return (stamp_ns - self.start_ns) / 1e9

    def paths(self, frame: ServedFrame) -> tuple[bool, ...]:
        """Whether each stage of `space` ran its full path, in execution order."""
        return self.space.parse(frame.depth).full_paths

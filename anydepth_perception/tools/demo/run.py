"""A run of the demo: what was asked for, and what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anydepth_perception.depth.space import DepthConfig, DepthSpace
from anydepth_perception.tools.demo.recorder import Recording, ServedFrame
from anydepth_perception.tools.demo.turns import Turn, TurnFrame, turn_frames


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
        turns: of the policies.
        deadline_ms: of the detector.
        rate_hz: of the camera.
        cpu: (seconds from the start, share of all CPUs that was busy) of samples.
        class_names: of the detector.
        space: of the detector's network.
        average_precision: AP in [0, 1] of a configuration.
    """

    recording: Recording
    start_ns: int
    seconds: float
    load_s: tuple[float, float]
    turns: Sequence[Turn]
    deadline_ms: float
    rate_hz: float
    cpu: Sequence[tuple[float, float]]
    class_names: tuple[str, ...]
    space: DepthSpace
    average_precision: Callable[[DepthConfig], float]

    def time_s(self, stamp_ns: int) -> float:
        """Seconds from the start of the run."""
        return (stamp_ns - self.start_ns) / 1e9

    def paths(self, frame: ServedFrame) -> tuple[bool, ...]:
        """Whether each stage of `space` ran its full path, in execution order."""
        return self.space.parse(frame.depth).full_paths

    def frames(self, policy: str) -> list[TurnFrame]:
        """The published frames of the policy's turns."""
        return [
            frame for frame in turn_frames(self.turns, sorted(self.recording.truth), self.recording.served)
            if frame.policy == policy
        ]

    def precision_in_time(self, frame: TurnFrame) -> float:
        """AP in [0, 1] of the configuration that ran; 0 where the frame was late or left out."""
        if frame.served is None or not frame.on_time:
            return 0.0
        return self.average_precision(self.space.parse(frame.served.depth))

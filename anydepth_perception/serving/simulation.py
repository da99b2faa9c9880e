"""Simulates several cameras on one detector: the scheduler and the controller as they are, in simulated time.

It tells beforehand which deadlines and rates a machine sustains. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from anydepth_perception.depth.controller import DepthController
from anydepth_perception.depth.simulation.baselines import BASELINES, controller
from anydepth_perception.depth.simulation.loads import KINDS, synthetic
from anydepth_perception.depth.simulation.play import Policy, serve, spans_of
from anydepth_perception.depth.simulation.trace import Trace, TraceError, read_trace
from anydepth_perception.serving.simulated_cameras import Served, SimulatedCamera, simulate

_ROW_S = 1.0 / 30.0
"""A row of times holds for so long."""

_PHASE_S = 0.003
"""From one camera's images to the next one's: they come nearly at once, which is the hardest."""


class CameraFigures(TypedDict):
    """One camera: frames a second, shares in percent, mean AP points of what ran."""

    sent_hz: float
    served_hz: float
    in_time_percent: float
    avoidable_percent: float
    mean_ap: float


@dataclass
class SimulatedDetector:
    """Takes what the trace says at that time, at the depth that the policy chooses for the budget."""

    policy: Policy
    trace: Trace
    points: Sequence[str]
    ap: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._spans = spans_of(self.trace.network.space, self.points)

    def __call__(self, budget_ms: float | None, now_s: float) -> float:
        """Serves a frame that begins then; the milliseconds that it takes."""
        row = int(now_s / _ROW_S) % len(self.trace)
        config, frame_ms = serve(self.policy, self.trace, row, budget_ms, self._spans)
        self.ap.append(self.trace.network.average_precision[config])
        return frame_ms


def simulate_detector(
    cameras: Sequence[SimulatedCamera], trace: Trace, *, seconds: float, seed: int = 0
) -> list[CameraFigures]:
    """Figures of each camera, beside a detector that is always at base.

    A frame is avoidably late where it is in time with the detector at base and not with the controller.
    """
    points = trace.network.space.default_points
    chosen = controller(trace.network, points)
    assert isinstance(chosen, DepthController)
    auto = SimulatedDetector(chosen, trace, points)
    base = SimulatedDetector(BASELINES["base"](trace.network), trace, ())

    def run(detector: SimulatedDetector) -> list[Served]:
        return simulate(cameras, detector, seconds=seconds, is_hopeless=chosen.is_hopeless, seed=seed)

    with_auto, with_base = run(auto), run(base)
    precision = np.array(auto.ap)
    base_in_time = {(frame.camera, frame.number) for frame in with_base if frame.in_time}
    figures: list[CameraFigures] = []
    for index, camera in enumerate(cameras):
        own = [frame.camera == index for frame in with_auto]
        in_time = {frame.number for frame in with_auto if frame.camera == index and frame.in_time}
        sent = round(seconds / camera.period_s)
        avoidable = sum(number not in in_time for other, number in base_in_time if other == index)
        figures.append(
            {
                "sent_hz": round(1.0 / camera.period_s, 2),
                "served_hz": round(sum(own) / seconds, 2),
                "in_time_percent": round(100.0 * len(in_time) / sent, 2),
                "avoidable_percent": round(100.0 * avoidable / sent, 2),
                "mean_ap": round(100.0 * float(precision[own].mean()), 2) if any(own) else 0.0,
            }
        )
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `python -m anydepth_perception.serving.simulation --deadlines 90,90,45`."""
    parser = argparse.ArgumentParser(prog="anydepth_perception.serving.simulation", description=__doc__)
    parser.add_argument("--deadlines", default="90,90,45", metavar="MS,...", help="one a camera (default: %(default)s)")
    parser.add_argument("--rates", default="10", metavar="HZ,...", help="one for all, or one a camera")
    parser.add_argument("--behind", default="0", metavar="S,...", help="by how much clocks are behind, likewise")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="recorded times; without it, a made-up load")
    parser.add_argument("--load", choices=tuple(KINDS), default="steps", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        deadlines = _numbers("--deadlines", options.deadlines)
        rates = _numbers("--rates", options.rates, len(deadlines))
        behind = _numbers("--behind", options.behind, len(deadlines))
        if not 0.0 < options.seconds <= 86400.0 or min(rates) <= 0.0 or min(*deadlines, *behind) < 0.0:
            raise ValueError("seconds and rates must be above 0, deadlines and clocks 0 or above")
        rows = round(options.seconds / _ROW_S) + 1
        trace = read_trace(options.trace) if options.trace else synthetic(options.load, options.seed, rows)
    except (TraceError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    cameras = [
        SimulatedCamera(deadline_ms, 1.0 / rate_hz, index * _PHASE_S, behind_s=behind_s)
        for index, (deadline_ms, rate_hz, behind_s) in enumerate(zip(deadlines, rates, behind, strict=True))
    ]
    found = simulate_detector(cameras, trace, seconds=options.seconds, seed=options.seed)
    for index, (camera, row) in enumerate(zip(cameras, found, strict=True)):
        print(
            f"camera {index}, {camera.deadline_ms:g} ms: {row['served_hz']:.1f} of {row['sent_hz']:.1f} Hz served, "
            f"{row['in_time_percent']:.1f} % in time, {row['avoidable_percent']:.2f} % avoidably late, "
            f"AP {row['mean_ap']:.1f}"
        )
    print(json.dumps({"load": options.trace.stem if options.trace else options.load, "cameras": found}))
    return 0


def _numbers(name: str, text: str, count: int | None = None) -> list[float]:
    """Numbers with commas between; one stands for `count`. Raises: ValueError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r}, expected numbers with commas between") from None
    if count is not None and len(numbers) == 1:
        numbers *= count
    if not np.isfinite(numbers).all() or (count is not None and len(numbers) != count):
        raise ValueError(f"{name} is {text!r}, expected one finite number for each of {count} cameras, or one for all")
    return numbers


if __name__ == "__main__":
    sys.exit(main())

"""The demo's pictures, of networks with any number of stages."""

from __future__ import annotations

import numpy as np
import pytest

from anydepth_perception.depth.space import DepthConfig, DepthSpace
from anydepth_perception.tools.demo.canvas import ESSENTIAL, FULL
from anydepth_perception.tools.demo.recorder import Recording, ServedFrame
from anydepth_perception.tools.demo.run import Run
from anydepth_perception.tools.demo.score import LabelledBoxes
from anydepth_perception.tools.demo.scoreboard import score_policies
from anydepth_perception.tools.demo.timeline import DEPTH_BOTTOM, DEPTH_TOP, draw_timeline
from anydepth_perception.tools.demo.turns import Turn
from anydepth_perception.tools.demo.video import TALLY_PX, Tally, draw_frame


def run_of(depth: str, *stages: str, exits: int = 0) -> Run:
    """A run of one second, whose only frame, in its middle, was served at `depth`."""
    space = DepthSpace.of((*stages, "exits") if exits else stages, stages, stages, exits)
    frame = ServedFrame(500_000_000, depth, latency_ms=20.0, inference_ms=15.0, missed=True)
    recording = Recording(served=[frame], truth={frame.stamp_ns: LabelledBoxes(np.zeros((0, 4)), (), np.zeros(0))})
    turns = [Turn("auto", 0, 10**9)]
    return Run(recording, 0, 1.0, (0.3, 0.4), turns, 40.0, 10.0, [], ("person",), space, lambda config: 0.5)


def amount(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((picture == color).all(axis=-1).sum())


@pytest.mark.parametrize(("depth", "stages", "exits"), [("FE", "ab", 0), ("FEFE.FE.d2", "abcdef", 3)])
def test_half_of_the_stages_at_full_is_half_of_the_timelines_depth(depth: str, stages: str, exits: int) -> None:
    run = run_of(depth, *stages, exits=exits)
    panel = draw_timeline(run, "title", score_policies(run))[DEPTH_TOP:DEPTH_BOTTOM]
    assert amount(panel, FULL) == pytest.approx(amount(panel, ESSENTIAL), rel=0.05)
    assert amount(panel, FULL) > 1000


@pytest.mark.parametrize("count", [1, 4, 8, 30])
def test_banner_has_a_box_for_every_stage_however_many_there_are(count: int) -> None:
    depth = str(DepthConfig(tuple(index % 2 == 0 for index in range(count))))
    run = run_of(depth, *(f"s{index}" for index in range(count)))
    picture = draw_frame(run, np.zeros((48, 640, 3), np.uint8), 500_000_000, run.recording.served[0], {"auto": Tally()})
    boxes = [(picture[TALLY_PX + 12] == color).all(axis=-1).astype(int) for color in (FULL, ESSENTIAL)]
    starts = [int((np.diff(box, prepend=0) == 1).sum()) for box in boxes]
    assert starts == [(count + 1) // 2, count // 2]

"""What each policy gets into its deadline, on frames laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from anydepth_perception.depth.space import DepthSpace
from anydepth_perception.tools.demo.recorder import Recording, ServedFrame
from anydepth_perception.tools.demo.run import Run
from anydepth_perception.tools.demo.score import LabelledBoxes
from anydepth_perception.tools.demo.scoreboard import gain_percent, score_policies
from anydepth_perception.tools.demo.summary import gain_in_words
from anydepth_perception.tools.demo.turns import Turn

SPACE = DepthSpace.of(("a", "b"), ("a", "b"), ("a", "b"))
BOX = LabelledBoxes(np.array([[10.0, 10.0, 50.0, 50.0]]), ("cone",), np.ones(1))


def run_of(*frames: tuple[int, str | None, bool]) -> Run:
    """A run of (stamp, depth or None where the frame was left out, whether it missed); one cone is in each frame."""
    served = [ServedFrame(stamp, depth, 20.0, 15.0, missed) for stamp, depth, missed in frames if depth is not None]
    truth, found = {stamp: BOX for stamp, _, _ in frames}, {frame.stamp_ns: BOX for frame in served}
    recording = Recording(truth=truth, detections=found, served=served)
    turns = [Turn("auto", 0, 100), Turn("full", 100, 200), Turn("base", 200, 300)]
    return Run(
        recording, 0, 1.0, (0.3, 0.4), turns, 40.0, 10.0, [], ("cone",), SPACE,
        lambda config: 0.5 + 0.1 * config.depth_fraction,
    )


def test_late_frames_and_those_left_out_count_as_nothing_found() -> None:
    run = run_of(
        (10, "FF", False), (20, "FE", True), (30, "EE", True), (40, None, True),
        (110, "FF", False), (120, "FF", True), (210, "EE", False), (310, "FF", True),
    )
    scores = score_policies(run)
    auto, full, base = scores["auto"], scores["full"], scores["base"]
    assert (auto["frames"], full["frames"], base["frames"]) == (4, 2, 1)
    assert (auto["late_percent"], auto["late_refined_percent"]) == (75.0, 25.0)
    assert (auto["on_time_recall"], full["on_time_recall"], base["on_time_recall"]) == (0.25, 0.5, 1.0)
    assert (auto["on_time_ap"], full["on_time_ap"], base["on_time_ap"]) == (15.0, 30.0, 50.0)
    assert gain_percent(full, base) == pytest.approx(-40.0)
    words = "auto: 15.0 AP in time, 75.0 % late (25.0 % beyond base): -50.0 % on always full"
    assert gain_in_words(scores).startswith(words)


def test_a_policy_without_a_frame_has_nothing() -> None:
    score = score_policies(run_of((10, "FF", False)))["base"]
    assert (score["frames"], score["late_percent"], score["on_time_ap"]) == (0, 0.0, 0.0)
    assert gain_percent(score, score) == 0.0

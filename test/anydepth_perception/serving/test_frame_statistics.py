"""Counts, rates and percentiles of served frames."""

from __future__ import annotations

import pytest

from anydepth_perception.serving.statistics import FrameReport, FrameStatistics, summarise


def report(latency_ms: float, deadline_ms: float = 0.0, depth: str = "FFFF.FFFF") -> FrameReport:
    return FrameReport(depth, 3, latency_ms, 1.0, 1.0, 1.0, 1.0, deadline_ms)


@pytest.mark.parametrize(
    ("latency_ms", "deadline_ms", "missed"), [(50.0, 40.0, True), (40.0, 40.0, False), (50.0, 0.0, False)]
)
def test_frame_is_missed_only_beyond_a_deadline_that_is_set(latency_ms, deadline_ms, missed):
    assert report(latency_ms, deadline_ms).missed is missed


def test_no_frames_have_no_latency():
    summary = FrameStatistics().summary(10.0)
    assert summary.latency_ms_p50 is None and summary.depth is None and summary.frames_per_s == 0.0


def test_percentiles_and_rate_are_of_the_last_five_seconds():
    statistics = FrameStatistics()
    for index in range(100):  # 10 Hz for 10 s
        statistics.served(report(1000.0 if index < 50 else 20.0), index * 0.1)
    summary = statistics.summary(9.95)
    assert summary.counts.served == 100
    assert summary.latency_ms_p50 == summary.latency_ms_p95 == 20.0
    assert summary.frames_per_s == pytest.approx(10.0, rel=0.05)


def test_rate_right_after_the_start_is_not_diluted():
    statistics = FrameStatistics()
    for index in range(20):  # 10 Hz for 2 s
        statistics.served(report(20.0), index * 0.1)
    assert statistics.summary(2.0).frames_per_s == pytest.approx(10.0, rel=0.05)


def test_cameras_are_summed_up_and_the_newest_frame_gives_the_depth():
    left, right = FrameStatistics(), FrameStatistics()
    left.served(report(10.0, 15.0, "EEEE.EEEE"), 1.1)
    right.served(report(30.0, 15.0, "FFFF.EEEE"), 1.0)
    right.count("bad", 2)
    summary = summarise([left, right], 2.0)
    assert (summary.counts.served, summary.counts.missed, summary.counts.bad) == (2, 1, 2)
    assert summary.latency_ms_p50 == 20.0
    assert summary.depth == "EEEE.EEEE"

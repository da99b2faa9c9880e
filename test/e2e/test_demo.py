"""The demo as a user runs it, with the shipped bundle and shortened: files, summary and exit code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
from ros_processes import ROOT, child_environment, runtime_python

KEYS = {
    *("frames_published", "frames_received", "frames_replaced", "frames_lost", "detections", "recall50"),
    *("precision50", "latency_ms_p50", "latency_ms_p95", "deadline_ms", "miss_percent", "rungs_used"),
    *("depth_before_load", "depth_under_load", "depth_after_load", "policies", "auto_gain_percent"),
}


def run_demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [runtime_python(), "-m", "anydepth_perception.tools.demo", *arguments]
    environment = {**child_environment(), **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)


def test_a_short_demo_ends_with_its_summary_video_and_timeline(tmp_path: Path) -> None:
    result = run_demo("--output", str(tmp_path), DEMO_SECONDS="6")
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary.keys() >= KEYS
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames_published"] > 20
    assert summary["policies"].keys() == {"auto", "full", "base"}
    assert all(0.0 <= score["on_time_recall"] <= 1.0 for score in summary["policies"].values())
    assert summary["frames_received"] + summary["frames_lost"] == summary["frames_published"]
    assert summary["recall50"] > 0.3
    assert summary["detections"] > summary["frames_served"]
    video = cv2.VideoCapture(str(tmp_path / "demo.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) > 20
    timeline = cv2.imread(str(tmp_path / "timeline.png"))
    assert timeline is not None and timeline.std() > 10


def test_a_demo_without_its_bundle_says_so_in_one_line(tmp_path: Path) -> None:
    result = run_demo("--output", str(tmp_path), "--model", "no-such-bundle")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "no-such-bundle" in result.stderr


def test_a_wrong_length_is_refused_with_what_is_accepted(tmp_path: Path) -> None:
    result = run_demo("--output", str(tmp_path), DEMO_SECONDS="soon")
    assert result.returncode == 2
    assert "from 6 to 3600" in result.stderr

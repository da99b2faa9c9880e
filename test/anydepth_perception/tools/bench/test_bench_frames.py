"""The measurement of frames: what it prints, for people and for machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from anydepth_perception.tools.bench import frames
from anydepth_perception.tools.bench.figures import transport_lines


def test_last_line_is_json_with_rungs_host_time_and_transport(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int, int]] = []

    def fake_transports(width: int, height: int, count: int) -> dict[str, Any]:
        asked.append((width, height, count))
        times = {"sent": count, "received": count, "latency_ms_p50": 2.0, "latency_ms_p95": 3.0}
        return {"with_profile": times, "without_profile": {"not_measured": "for a test"}}

    monkeypatch.setattr(frames, "transports", fake_transports)
    monkeypatch.setenv("BENCH_SECONDS", "2")
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, "")  # so that they are put back
    frames.main(["--model", str(tiny_bundle_path), "--rungs", "3", "--image-size", "320x240"])
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert asked == [(320, 240, 10)]
    assert len(result["rungs"]) == 3
    assert all(0 < rung["inference_ms_p50"] <= rung["inference_ms_p95"] for rung in result["rungs"].values())
    assert set(result["host_parts_ms_p50"]) == {"wrap", "preprocess", "postprocess", "publish"}
    assert 0 < result["host_ms_p50"] <= result["host_ms_p95"]
    assert result["controller_us_p50"] > 0
    assert "transport with profile: 10 of 10 images received, latency p50 2.0 ms, p95 3.0 ms" in lines
    assert "transport without profile: not measured: for a test" in lines


def test_without_ros_the_reason_stands_in_the_place_of_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anydepth_perception.tools.bench.transport", None)
    result = frames.transports(320, 240, 10)
    assert str(result["not_measured"]).startswith("ROS is not installed here: ")
    (line,) = transport_lines(result)
    assert line.startswith("transport not measured: ROS is not installed here: ")

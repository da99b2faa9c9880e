"""The benchmark: what it prints, how long it takes is bounded, and images travel between two processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from anydepth_perception.tools.bench import frames as bench


def test_last_line_is_json_with_rungs_host_time_and_transport(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int, int]] = []

    def fake_transports(width: int, height: int, frames: int) -> dict[str, Any]:
        asked.append((width, height, frames))
        times = {"sent": frames, "received": frames, "latency_ms_p50": 2.0, "latency_ms_p95": 3.0}
        return {"with_profile": times, "without_profile": {"not_measured": "for a test"}}

    monkeypatch.setattr(bench, "transports", fake_transports)
    monkeypatch.setenv("BENCH_SECONDS", "2")
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, "")  # so that they are put back
    bench.main(["--model", str(tiny_bundle_path), "--rungs", "3", "--image-size", "320x240"])
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


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_bad_time_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"BENCH_SECONDS is '{text}', expected a number of seconds above 0"):
        bench.bench_seconds(text, 60.0)


def test_time_limit_has_a_default() -> None:
    assert bench.bench_seconds("", 60.0) == 60.0
    assert bench.bench_seconds("12.5", 60.0) == 12.5


def test_images_travel_between_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy")
    from anydepth_perception.ros.qos import image_profile_path
    from anydepth_perception.tools.bench.transport import measure_transport

    monkeypatch.setenv("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[4]), prepend=os.pathsep)
    profile = image_profile_path()
    assert profile is not None
    result = measure_transport(profile, frames=15)
    assert result["sent"] == 15
    # Best effort may lose some on a loaded machine, not all.
    assert 1 <= result["received"] <= 15
    assert 0 < result["latency_ms_p50"] <= result["latency_ms_p95"]

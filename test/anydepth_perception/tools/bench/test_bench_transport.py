"""The measurement of transport: images travel between two processes, and what cannot be measured is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from anydepth_perception.ros.qos import image_profile_path
from anydepth_perception.tools.bench import transport
from anydepth_perception.tools.bench.transport import TransportError, measure_transport


def test_images_travel_between_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_command_prints_both_transports_and_the_reason_for_one_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int, float, int]] = []

    def measured(profile: Path | None, *, width: int, height: int, rate_hz: float, frames: int) -> transport.Transport:
        asked.append((width, height, rate_hz, frames))
        if profile is None:
            raise TransportError("for a test")
        return {"sent": frames, "received": 9, "latency_ms_p50": 2.0, "latency_ms_p95": 3.0}

    monkeypatch.setattr(transport, "measure_transport", measured)
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, "")  # so that they are put back
    transport.main(["--image-size", "320x240", "--rate-hz", "15", "--frames", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert asked == [(320, 240, 15.0, 10)] * 2
    assert lines[:2] == [
        "transport with profile: 9 of 10 images received, latency p50 2.0 ms, p95 3.0 ms",
        "transport without profile: not measured: for a test",
    ]
    assert json.loads(lines[-1])["transport"]["with_profile"]["received"] == 9

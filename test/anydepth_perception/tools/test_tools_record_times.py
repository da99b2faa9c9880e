"""Recording times: what it writes can be replayed, and stands for what ran."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.depth.simulation.report import AUTO, run_policy
from anydepth_perception.depth.simulation.trace import read_trace
from anydepth_perception.tools.record_times import main


def test_recorded_times_can_be_replayed(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "times.npz"
    main([str(file), "--model", str(tiny_bundle_path), "--frames", "8", "--rate", "500", "--image-size", "64x48"])
    assert "4 frames at full depth" in capsys.readouterr().out
    trace = read_trace(file)
    with np.load(file) as arrays:
        full = arrays["configuration"] == "FFFF.FFFF"
        np.testing.assert_allclose(trace.frame_ms(trace.network.space.full)[full], arrays["frame_ms"][full], rtol=1e-4)
        base = ~full
        np.testing.assert_allclose(trace.frame_ms(trace.network.space.base)[base], arrays["frame_ms"][base], rtol=1e-4)
    assert run_policy(AUTO, trace, 1e4).outcome.miss_percent == 0.0


def test_a_bundle_that_is_not_there_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "times.npz"), "--model", "nowhere"])
    assert capsys.readouterr().err.startswith("error: ")

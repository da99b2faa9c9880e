"""Several cameras on the scheduler and the controller as they are, in simulated time, and the command for it."""

from __future__ import annotations

import json

import pytest

from anydepth_perception.depth.simulation.loads import synthetic
from anydepth_perception.serving.simulated_cameras import SimulatedCamera
from anydepth_perception.serving.simulation import main, simulate_detector

SECONDS = 60.0


def cameras(*deadlines_ms: float, phase_s: float) -> list[SimulatedCamera]:
    return [SimulatedCamera(deadline_ms, 0.1, index * phase_s) for index, deadline_ms in enumerate(deadlines_ms)]


@pytest.mark.parametrize("phase_s", [0.003, 0.033])
@pytest.mark.parametrize("seed", [2001, 2002])
def test_three_cameras_meet_their_deadlines_under_load_steps_with_more_than_base(seed: int, phase_s: float) -> None:
    trace = synthetic("steps", seed, 1801)
    base_ap = 100 * trace.network.average_precision[trace.network.space.base]
    found = simulate_detector(cameras(90, 90, 45, phase_s=phase_s), trace, seconds=SECONDS, seed=seed)
    assert sum(camera["avoidable_percent"] for camera in found) / 3 <= 0.5
    assert sum(camera["served_hz"] for camera in found) == pytest.approx(30.0, abs=0.1)
    if phase_s == 0.033:  # nearly at once, the machine has time for little more than base
        assert min(camera["mean_ap"] for camera in found) > base_ap + 2.0


def test_the_command_tells_each_camera(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--deadlines", "90,60", "--rates", "5,10", "--load", "steady", "--seconds", "10"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["camera 0, 90 ms", "camera 1, 60 ms"]
    assert [camera["served_hz"] for camera in json.loads(last)["cameras"]] == [5.0, 10.0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--deadlines", "90,x"], "--deadlines is '90,x'"),
        (["--rates", "1,2"], "each of 3 cameras"),
        (["--rates", "0"], "above 0"),
        (["--behind", "nan"], "finite"),
        (["--seconds", "0"], "above 0"),
        (["--trace", "nowhere.npz"], "nowhere.npz: cannot be read"),
    ],
)
def test_wrong_numbers_are_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1

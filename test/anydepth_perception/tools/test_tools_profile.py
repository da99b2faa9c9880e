"""The profile tool: measures, prints the ladder, saves the profile, and says in one line what stops it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_bundle import tiny_manifest, tiny_segments

from anydepth_perception.bundle import write_bundle
from anydepth_perception.profile.machine import LoadState
from anydepth_perception.tools import profile
from anydepth_perception.tools.plots import Series


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "anydepth_perception"


def run(bundle: Path, output: Path, *further: str) -> None:
    profile.main(["--model", str(bundle), "--rungs", "3", "--repeats", "3", "--output", str(output), *further])


def test_tool_prints_the_ladder_and_saves_the_profile(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "profile.json"
    run(tiny_bundle_path, path, "--json")
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert f"profile saved to {path}" in lines
    assert list(report["rungs"])[0::2] == ["EEEE.EEEE", "FFFF.FFFF"]
    assert report["rungs"]["FFFF.FFFF"]["on_ladder"]
    assert report["rungs"]["FFFF.FFFF"]["AP"] == 0.5
    assert any(line.startswith("EEEE.EEEE") for line in lines)
    assert any(line.startswith("ladder: ") for line in lines)
    assert set(json.loads(path.read_text())["rungs"]) == set(report["rungs"])


def test_tool_measures_every_segment_and_says_how_they_add_up(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_bundle_path, tmp_path / "profile.json", "--json")
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert report["segments_measured"]
    assert all(sum(line.startswith(f"{name} ") for line in lines) == 1 for name in report["segments"])
    (ratio,) = (line.rpartition("configurations: ")[2] for line in lines if line.startswith("sum of segments over"))
    assert float(ratio) == pytest.approx(report["segments_over_rungs"], abs=6e-4)  # both are rounded
    sums = {name: rung["sum_of_segments_ms"] for name, rung in report["rungs"].items()}
    assert sums["EEEE.EEEE"] == pytest.approx(
        sum(ms for name, ms in report["segments"].items() if not name.endswith(".full")), abs=1e-3
    )


def test_tool_leaves_segments_out_if_asked(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_bundle_path, tmp_path / "profile.json", "--no-segments")
    assert "sum of segments" not in capsys.readouterr().out
    assert not json.loads((tmp_path / "profile.json").read_text())["steps_measured"]


def test_tool_profiles_all_configurations_of_staged_execution_and_its_groups(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_bundle_path, tmp_path / "profile.json", "--execution", "staged", "--all-configurations", "--json")
    output = capsys.readouterr().out
    assert len(json.loads(output.splitlines()[-1])["rungs"]) == 256
    assert "staged before p5, pan_p4, head" in output
    assert "stem..p4" in output


def test_tool_draws_beside_the_profile(tiny_bundle_path: Path, tmp_path: Path) -> None:
    run(tiny_bundle_path, tmp_path / "profile.json")
    assert cv2.imread(str(tmp_path / "profile.png")) is not None


def test_tool_draws_where_it_is_told_to(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_bundle_path, tmp_path / "profile.json", "--plot", str(tmp_path / "deep" / "plot.png"))
    assert cv2.imread(str(tmp_path / "deep" / "plot.png")) is not None
    assert not (tmp_path / "profile.png").exists()
    assert f"AP over latency drawn in {tmp_path / 'deep' / 'plot.png'}" in capsys.readouterr().out


def test_plot_labels_the_ends_and_tells_measured_ap_from_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tiny_manifest()
    manifest["accuracy"]["configurations"]["FFFF.FFFF"]["measured"] = True
    bundle = write_bundle(tmp_path / "tiny.anydepth", manifest, tiny_segments())
    drawn: list[Series] = []

    def record(title: str, subtitle: str, axes: object, series: Sequence[Series], legend: object) -> np.ndarray:
        drawn.extend(series)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(profile, "draw_chart", record)
    run(bundle.path, tmp_path / "profile.json")
    points = {point.label: point for series in drawn for point in series.points}
    assert set(points) == {"base", "", "full"}
    assert (points["full"].y, points["full"].filled) == (0.5, True)
    assert (points["base"].y, points["base"].filled) == (0.4, False)
    assert points["full"].tail_x is not None
    (ladder,) = (series for series in drawn if series.joined)
    assert points["full"] in ladder.points


def test_plot_does_not_take_the_place_of_the_profile(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tiny_bundle_path, tmp_path / "profile.png")
    assert caught.value.code == 1
    assert "is to hold the profile and the picture" in capsys.readouterr().err


def test_plot_that_cannot_be_written_ends_the_tool_with_one_line(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tiny_bundle_path, tmp_path / "profile.json", "--plot", str(tmp_path))
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: cannot be written")


@pytest.mark.parametrize(("load", "warned"), [(0.5, True), (0.1, False), (None, False)])
def test_busy_machine_is_warned_about(
    tiny_bundle_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    load: float | None,
    warned: bool,
) -> None:
    monkeypatch.setattr(
        "anydepth_perception.profile.measure.LoadWatch.state", lambda watch: LoadState(others_cpu_load=load)
    )
    run(tiny_bundle_path, tmp_path / "profile.json")
    assert ("WARNING: other processes took 50 % of the CPUs" in capsys.readouterr().out) is warned


def test_default_place_is_the_users_cache(
    tiny_bundle_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anydepth_perception.profile.identity.power_mode", lambda: "unknown")
    profile.main(["--model", str(tiny_bundle_path), "--rungs", "2", "--repeats", "3", "--threads", "1"])
    expected = [f"tiny-onnxruntime-float32-1-whole.{kind}" for kind in ("json", "png")]
    assert sorted(file.name for file in (cache / "profiles").iterdir()) == expected


def test_engines_of_the_configurations_are_kept_for_the_node(tiny_bundle_path: Path, tmp_path: Path) -> None:
    run(tiny_bundle_path, tmp_path / "profile.json", "--cache-dir", str(tmp_path / "engines"))
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 3


def test_decision_points_are_those_asked_for(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = ["--execution", "staged", "--decision-points", "p4", "fpn_p3"]
    run(tiny_bundle_path, tmp_path / "profile.json", *points)
    assert "staged before p4, fpn_p3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("further", "reason"),
    [
        (["--decision-points", "p4"], "--decision-points is for staged"),
        (["--execution", "staged", "--decision-points", "p9"], "decision point 'p9' is not one of"),
        (["--backend", "onnxruntime", "--precision", "float16"], "precision float16 is TensorRT's"),
    ],
)
def test_options_that_do_not_fit_end_the_tool_with_one_line(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], further: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tiny_bundle_path, tmp_path / "profile.json", *further)
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {reason}")


def test_missing_bundle_ends_the_tool_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        profile.main(["--model", str(tmp_path / "none.anydepth")])
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [["--rungs", "1"], ["--repeats", "x"], ["--threads", "-1"], ["--image-size", "640"], ["--image-size", "0x480"]],
)
def test_bad_option_is_refused_with_what_is_accepted(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        profile.main(arguments)
    assert caught.value.code == 2
    assert f"argument {arguments[0]}: '{arguments[1]}' is not" in capsys.readouterr().err

"""The profile tool: measures, prints the ladder, saves the profile, and says in one line what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from matplotlib.figure import Figure
from tiny_bundle import tiny_manifest, tiny_segments

from anydepth_perception.bundle import write_bundle
from anydepth_perception.profile.machine import LoadState
from anydepth_perception.tools import profile
from anydepth_perception.tools.profile_plot import draw_profile


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
    assert "staged before p4, fpn_p4, pan_p4" in output
    assert "stem..p3" in output


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


def test_without_matplotlib_the_profile_is_kept_and_a_line_says_what_to_install(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "can_draw", lambda: False)
    run(tiny_bundle_path, tmp_path / "profile.json")
    assert (tmp_path / "profile.json").exists() and not (tmp_path / "profile.png").exists()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "not drawn" in line)
    assert "pip install matplotlib" in line


def test_picture_that_is_asked_for_without_matplotlib_ends_the_tool_before_it_measures(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "can_draw", lambda: False)
    with pytest.raises(SystemExit) as caught:
        run(tiny_bundle_path, tmp_path / "profile.json", "--plot", str(tmp_path / "plot.png"))
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: --plot: matplotlib is not installed (")
    assert not (tmp_path / "profile.json").exists()


def plotted(path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The picture that the tool draws of a bundle whose full depth alone has a measured AP."""
    manifest = tiny_manifest()
    manifest["accuracy"]["configurations"]["FFFF.FFFF"]["measured"] = True
    bundle = write_bundle(path / "tiny.anydepth", manifest, tiny_segments())
    drawn: list[Figure] = []

    def keep(*arguments: Any) -> Figure:
        drawn.append(draw_profile(*arguments))
        return drawn[-1]

    monkeypatch.setattr("anydepth_perception.tools.profile_plot.draw_profile", keep)
    run(bundle.path, path / "profile.json")
    (figure,) = drawn
    return figure


def markers(figure: Figure, height: float) -> set[str]:
    """Colours that the single points at an AP are filled with."""
    lines = figure.axes[0].lines
    points = [line for line in lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    return {str(line.get_markerfacecolor()) for line in points if line.get_ydata()[0] == height}


def test_plot_tells_measured_ap_from_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = plotted(tmp_path, monkeypatch)
    assert markers(figure, 0.4) == {"white"}
    assert len(markers(figure, 0.5)) == 1 and "white" not in markers(figure, 0.5)


def test_plot_labels_the_ends_and_joins_the_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = plotted(tmp_path, monkeypatch).axes[0]
    assert {text.get_text(): text.xy[1] for text in axes.texts} == {"base": 0.4, "full": 0.5}
    (ladder,) = (line for line in axes.lines if line.get_label() == "ladder")
    assert ladder.get_ydata()[-1] == 0.5 and ladder.get_linestyle() == "-"


def test_plot_has_a_bar_to_the_p95_of_every_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = plotted(tmp_path, monkeypatch).axes[0]
    bars = [line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    assert len(bars) == 3
    for bar in bars:
        (start, end), (low, high) = bar.get_xdata(), bar.get_ydata()
        assert start <= end and low == high


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

"""The profile tool: measures, prints the ladder, saves the profile, and says in one line what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anydepth_perception.tools import profile


def test_tool_prints_the_ladder_and_saves_the_profile(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "profile.json"
    profile.main(["--model", str(tiny_bundle_path), "--rungs", "3", "--repeats", "3", "--output", str(path), "--json"])
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert f"profile saved to {path}" in lines
    assert list(report["rungs"])[0::2] == ["EEEE.EEEE", "FFFF.FFFF"]
    assert report["rungs"]["FFFF.FFFF"]["on_ladder"]
    assert report["rungs"]["FFFF.FFFF"]["AP"] == 0.5
    assert any(line.startswith("EEEE.EEEE") for line in lines)
    assert set(json.loads(path.read_text())["rungs"]) == set(report["rungs"])


def test_default_place_is_the_users_cache(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile.main(["--model", str(tiny_bundle_path), "--rungs", "2", "--repeats", "3", "--threads", "1"])
    assert [file.name for file in tmp_path.rglob("*.json")] == ["tiny-onnxruntime-float32-1.json"]


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

"""The benchmark's command line: which measurement runs, and with which of the words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from anydepth_perception.tools import bench
from anydepth_perception.tools.bench import execution, frames
from anydepth_perception.tools.bench.command import MEASUREMENTS


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The measurements that were started in place of the real ones, with their arguments."""
    calls: list[tuple[str, list[str]]] = []

    def recorder(name: str):
        def record(arguments: Sequence[str] | None) -> None:
            calls.append((name, list(arguments or ())))

        return record

    monkeypatch.setattr(frames, "main", recorder("frames"))
    monkeypatch.setattr(execution, "main", recorder("execution"))
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("frames", [])),
        (["--model", "execution"], ("frames", ["--model", "execution"])),
        (["frames", "--rungs", "3"], ("frames", ["--rungs", "3"])),
        (["execution", "--frames", "10"], ("execution", ["--frames", "10"])),
        (["execution", "--help"], ("execution", ["--help"])),
    ],
)
def test_the_first_word_chooses_and_frames_is_the_default(
    ran: list[tuple[str, list[str]]], words: list[str], expected: tuple[str, list[str]]
) -> None:
    bench.main(words)
    assert ran == [expected]


def test_the_command_line_of_the_process_is_the_default(
    ran: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "execution", "--memory"])
    bench.main()
    assert ran == [("execution", ["--memory"])]


def test_an_unknown_word_is_refused_with_what_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["speed"])
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert "'speed'" in errors and all(name in errors for name in MEASUREMENTS)


def test_help_names_every_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in MEASUREMENTS)


@pytest.mark.parametrize("name", ["start", "transport"])
def test_what_needs_ros_says_so_where_there_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, f"anydepth_perception.tools.bench.{name}", None)
    with pytest.raises(SystemExit) as ended:
        bench.main([name])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: bench {name} needs ROS: ")

"""The build tool: fills the engine cache, says what it did, and fails in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from anydepth_perception.backends import create_backend
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
from anydepth_perception.bundle import Bundle
from anydepth_perception.execution import STAGED, WHOLE, Checked, EngineReady, Execution, decision_points_of
from anydepth_perception.tools import build as module
from anydepth_perception.tools.build import Report, main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tiny_bundle_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the tool on the tiny bundle; exit status, output and errors."""

    def start(*arguments: str) -> tuple[int, str, str]:
        common = ["--model", str(tiny_bundle_path), "--backend", "onnxruntime", "--threads", "1"]
        try:
            main([*common, "--cache-dir", str(tmp_path / "engines"), *arguments])
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return start


def built_by_an_execution(execution: str, bundle: Bundle, folder: Path) -> int:
    """How many engines an execution has to build that starts with the tool's cache."""
    events: list[EngineReady | Checked] = []
    backend = create_backend("onnxruntime", threads=1)
    points = decision_points_of(execution, bundle.space)
    prepared = Execution(bundle, backend, points, cache=EngineCache(folder), progress=events.append)
    for config in (bundle.full, bundle.base):
        prepared.ensure(config)
    return sum(not event.cached for event in events if isinstance(event, EngineReady))


@pytest.mark.parametrize("execution", [WHOLE, STAGED])
def test_what_it_built_is_built_no_more(run: Run, execution: str, tiny_bundle_path: Path, tmp_path: Path) -> None:
    assert run("--execution", execution)[0] == 0
    assert built_by_an_execution(execution, Bundle.load(tiny_bundle_path), tmp_path / "engines") == 0


def test_it_tells_of_every_engine_of_the_ladder_and_of_every_check(run: Run) -> None:
    _, output, errors = run("--rungs", "3")
    assert errors == ""
    assert re.findall(r"^\[ ?(\d)/3\] [EF.]+: built in [\d.]+ s, [\d.]+ MB", output, re.M) == ["1", "2", "3"]
    assert len(re.findall(r"outputs of [EF.]+ differ by [\d.e-]+, at most 0\.001", output)) == 3
    assert re.search(r"3 engines ready in [\d.]+ s: 3 built, 0 from the cache, [\d.]+ MB", output)


def test_a_second_time_all_come_from_the_cache(run: Run) -> None:
    run("--rungs", "3")
    _, output, _ = run("--rungs", "3")
    assert output.count(": from the cache,") == 3
    assert "differ by" not in output
    assert "0 built, 3 from the cache" in output


def test_it_builds_the_configurations_it_is_given(run: Run) -> None:
    _, output, _ = run("--config", "full", "--config", "FFEE.EEEE")
    assert re.findall(r"^\[.*\] ([EF.]+):", output, re.M) == ["FFFF.FFFF", "FFEE.EEEE"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--config", "FF"], "depth FF has 2 stages, this network has 8: "),
        (["--model", "no-such-bundle"], "no-such-bundle: no such bundle"),
        (["--execution", "staged", "--decision-points", "p9"], "decision point 'p9' is not one of"),
        (["--precision", "float16"], "float16"),
        (["--cache-dir", "/dev/null/engines"], "/dev/null/engines: cannot be written"),
    ],
)
def test_it_fails_in_one_line_that_says_why(run: Run, arguments: list[str], reason: str) -> None:
    status, _, errors = run(*arguments)
    assert status == 1
    assert errors.startswith("error: ")
    assert reason in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--execution", "staged", "--config", "full"], ["--decision-points", "p4"], ["--rungs", "1"]]
)
def test_options_that_do_not_go_together_are_refused(run: Run, arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


def test_a_wrong_engine_is_an_error_and_is_not_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build = OnnxRuntimeBackend.build

    def tampered(backend: OnnxRuntimeBackend, model: onnx.ModelProto) -> bytes:
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 4:
                value = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        return build(backend, model)

    monkeypatch.setattr(OnnxRuntimeBackend, "build", tampered)
    status, _, errors = run()
    assert status == 1
    assert "are wrong: their outputs differ from the reference by" in errors
    assert list((tmp_path / "engines").iterdir()) == []


def test_engines_that_cannot_be_kept_are_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    status, _, errors = run()
    assert status == 1
    assert "error: cannot write the engine cache" in errors
    assert "No space left on device" in errors


def test_time_left_is_that_of_the_engines_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(1)
    for done, (cached, seconds) in enumerate([(False, 10.0), (True, 0.1), (False, 20.0), (False, 1.0)], 1):
        report(EngineReady(f"engine {done}", done, 4, cached, 1000, seconds))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", about ")[2] for line in lines] == ["30 s left", "20 s left", "15 s left", ""]


def test_the_tool_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert str(module.__doc__).strip() in " ".join(capsys.readouterr().out.split())

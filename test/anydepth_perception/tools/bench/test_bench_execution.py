"""The measurements of execution: every figure is there, memory is that of fresh processes, long runs are checked."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from spaces import EIGHT

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.execution import Execution
from anydepth_perception.tools.bench.execution import main, random_depths


@pytest.fixture(scope="module")
def staged(tiny_bundle_path: Path) -> Execution:
    bundle = Bundle.load(tiny_bundle_path)
    return Execution(bundle, create_backend(threads=1), bundle.space.default_points)


def test_all_figures_are_printed(tiny_bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", str(tiny_bundle_path), "--threads", "1", "--rungs", "3"]
    main([*model, "--rounds", "2", "--switches", "4", "--frames", "10"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    ratios = [*report["staged_over_whole"].values(), *report["switch_over_steady"].values()]
    ratios += [report[key] for key in ("ladder_rss_over_rung", "ladder_growth_over_rung", "staged_rss_over_rung")]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    assert [report["random_depths"][name]["differing_frames"] for name in ("whole", "staged")] == [0, 0]


def test_memory_counts_what_was_loaded(tiny_bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--memory", "--model", str(tiny_bundle_path), "--threads", "1", "--rungs", "1"])
    memory = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert memory["growth_mb"] == pytest.approx(memory["rss_mb"] - memory["imports_mb"], abs=0.11)


def test_a_frame_with_other_numbers_is_counted(staged: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EIGHT.full
    run, calls = staged.run, iter(range(100))

    def third_run_is_off(*arguments):
        executed = run(*arguments)
        if next(calls) == 2:
            staged.boxes[0, 0, 0] += 1
        return executed

    monkeypatch.setattr(staged, "run", third_run_is_off)
    np.copyto(staged.image, 7)
    assert random_depths(staged, [config], 5)["differing_frames"] == 1


def test_an_unknown_model_ends_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--model", "no-such-model"])
    assert "no-such-model" in capsys.readouterr().err

"""The benchmark: every figure it promises is there, and what it compares computes the same. No times are held here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, find_bundle
from training import bench, bench_parts
from training.bench_networks import largest_difference
from training.bench_plan import NotMeasured
from training.bench_report import HEADLINES, headline, markdown

PROMISED = (
    "staged_over_whole", "whole_over_monolithic", "base_over_full", "base_over_full_vs_gflops", "switch_over_steady",
    "ladder_rss_over_rung", "ours_over_peer", "int8_speedup", "host_ms_p50_vga", "host_ms_p50_1080p",
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures next to nothing, and leaves the environment as it was."""
    monkeypatch.setattr(bench_parts, "RUNGS", 3)
    monkeypatch.setattr(bench_parts, "_FEWEST_SWITCHES", 2)
    monkeypatch.setattr(bench_parts, "_CALIBRATION_IMAGES", 1)
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def only_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """One backend is enough for what is the same with all."""
    monkeypatch.setattr(bench, "BACKENDS", ("onnxruntime",))


@pytest.fixture
def bundle_under_test(tmp_path: Path) -> bench_parts.BundleUnderTest:
    bundle = Bundle.load(find_bundle("aisle-yolo-t"))
    weights = bundle.path.with_suffix(".safetensors")
    backends = {"onnxruntime": create_backend("onnxruntime", threads=1)}
    return bench_parts.BundleUnderTest(bundle, weights, backends, tmp_path)


def is_ratio(figure: dict[str, Any]) -> bool:
    low, high = figure["quartiles"]
    return 0 < low <= figure["median"] <= high < math.inf


def test_the_last_line_holds_what_was_measured_and_the_report_is_written(
    quick: None, only_onnxruntime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    parts = bench.parts_of
    short = {"rungs", "host", "switches", "int8"}
    monkeypatch.setattr(
        bench, "parts_of",
        lambda subject: [bench.Part(part.name, part.title, 1, 0.1, part.measure) for part in parts(subject)],
    )  # fmt: skip
    monkeypatch.setenv("BENCH_SECONDS", "3600")
    assert bench.main(["--parts", ",".join(short), "--output", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    measured = {entry.key for entry in HEADLINES if entry.part in short}
    assert measured >= set(PROMISED) - {"ladder_rss_over_rung", "ours_over_peer"}
    assert all(0 < result[key] < math.inf for key in measured)
    assert all(result[key] is None for key in {entry.key for entry in HEADLINES} - measured)
    assert result["left_out"] == dict.fromkeys(("peer", "memory", "yolo-l", "detr-r50"), "not asked for by --parts")
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "result.json", "plot.png"}


def test_every_promised_figure_is_null_where_its_part_was_left_out() -> None:
    values = headline(dict.fromkeys((entry.part for entry in HEADLINES), None))
    assert set(PROMISED) <= values.keys()
    assert set(values.values()) == {None}


def test_a_figure_beyond_its_bar_is_marked_in_the_report() -> None:
    bars = {entry.key: entry.at_most or entry.at_least for entry in HEADLINES}
    result = {key: bar and 2 * bar for key, bar in bars.items()}
    machine = {"cpu": "a CPU", "threads": 2, "backends": {}, "commit": "abc"}
    report = markdown({**result, "bundle": "b", "seconds": 1.0, "machine": machine, "parts": {}, "left_out": {}})
    assert "| 2.200 | <= 1.1 | MISSED |" in report
    assert "| 3.600 | >= 1.8 | pass |" in report
    assert "| - | - | not measured |" in report


def test_what_puts_out_something_else_is_not_compared() -> None:
    boxes, logits = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 6), np.float32)
    bench_parts.check_same("the export", [boxes, logits + np.float32(1e-4)], [boxes, logits])
    with pytest.raises(NotMeasured, match=r"the export differs from the bundle by 1.0e-02"):
        bench_parts.check_same("the export", [boxes, logits + np.float32(1e-2)], [boxes, logits])
    with pytest.raises(NotMeasured, match="by nan"):
        bench_parts.check_same("the export", [boxes, logits + np.float32("nan")], [boxes, logits])


def test_without_weights_the_monolithic_export_is_left_out_with_the_reason(
    quick: None, bundle_under_test: bench_parts.BundleUnderTest
) -> None:
    bundle_under_test.weights = None
    part = bench_parts.measure_rungs(bundle_under_test, 0.0)
    figures = part["backends"]["onnxruntime"]
    assert figures["whole_over_monolithic"] == {}
    assert "weights" in part["monolithic_left_out"]
    assert headline({"rungs": part})["whole_over_monolithic"] is None
    assert is_ratio(figures["base_over_full"])


def test_ours_and_the_peer_compute_the_same(quick: None, bundle_under_test: bench_parts.BundleUnderTest) -> None:
    part = bench_parts.measure_peer(bundle_under_test, 0.0, side=160)
    assert part["largest_difference"] < 1e-3
    assert is_ratio(part["ours_over_peer"])


def test_a_random_network_is_held_against_its_gflops(
    quick: None, bundle_under_test: bench_parts.BundleUnderTest
) -> None:
    part = bench_parts.measure_random(bundle_under_test, 0.0, "yolo-t", side=64)
    assert is_ratio(part["base_over_full"])
    expected = part["base_over_full"]["median"] / part["gflops_ratio"]
    assert part["base_over_full_vs_gflops"]["median"] == pytest.approx(expected, rel=1e-3)


def test_rows_are_held_to_the_nearest_each_once() -> None:
    rows = np.array([[0.0, 1.0], [5.0, 5.0]], np.float32)
    assert largest_difference(rows[::-1].copy(), rows) == 0.0
    assert largest_difference(rows + np.float32(0.25), rows) == 0.25
    assert largest_difference(rows[[0, 0]], rows) == float("inf")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "no-such-bundle"], "no-such-bundle"),
        (["--weights", "no-such-file"], "no-such-file: no such file"),
        (["--parts", "rungs,all"], "--parts names 'all', accepted are rungs, host"),
    ],
)
def test_wrong_arguments_end_with_the_reason(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(arguments) == 1
    assert reason in capsys.readouterr().err

"""The training benchmark runs and reports what it compares."""

from __future__ import annotations

import json

import pytest

from training.bench.training import DISTILLED, JOINT, STATIC, main, variants
from training.recipes.recipe import load_recipe


def test_variants_differ_in_passes_and_distillation_alone() -> None:
    of = variants(load_recipe("aisle-yolo-t"))
    assert of[STATIC].trained_passes == ("super",)
    assert of[JOINT].trained_passes == of[DISTILLED].trained_passes == ("super", "base")
    assert of[JOINT].distillation is None
    assert of[DISTILLED].distillation is not None


def test_the_command_prints_its_figures_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["image_size=[64, 64]", "batch_size=2", "data.frame_sizes=[[64, 64]]"]
    arguments = [part for setting in small for part in ("--set", setting)]
    assert main(["study-yolo-t", *arguments, "--rounds", "3", "--steps", "1", "--workers", "0"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["step_ms"]) == {STATIC, JOINT, DISTILLED}
    assert report["distilled_over_static"] > 0
    assert 0 <= report["loading"]["waiting_share"] < 1

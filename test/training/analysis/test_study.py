"""Studies: the shipped ones load; runs go on where they stopped; the table shows means and ranges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.analysis.study import STUDIES, load_study, table
from training.recipes.recipe import RecipeError
from training.study import main

SMALL = """
recipe: aisle-yolo-t
seeds: [3]
variants:
  static: [any_depth=false, {common}]
  distilled: ["distillation={{}}", {common}]
"""
COMMON = (
    '"image_size=[64, 64]", small_iterations=0, iterations=1, batch_size=2, workers=0, validate_every=1, '
    'validation_images=1, "data.frame_sizes=[[64, 64]]", "data.frame_weights=[1]"'
)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_load_and_every_variant_differs(path: Path) -> None:
    study = load_study(path.stem)
    recipes = [study.recipe_of(variant, 0) for variant in study.variants]
    assert len(set(map(repr, recipes))) == len(recipes)
    assert len(study.seeds) >= 2


def test_runs_are_evaluated_at_the_nets_that_were_trained_and_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.format(common=COMMON))
    arguments = [str(file), "--output", str(tmp_path / "runs"), "--split", "val", "--count", "1", "--device", "cpu"]
    assert main(arguments) == 0
    results = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert set(results["distilled"]["3"]) == {"super", "base"}
    assert set(results["static"]["3"]) == {"super"}
    weights = tmp_path / "runs" / "static-seed3" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    capsys.readouterr()

    assert main(arguments) == 0

    assert weights.stat().st_mtime_ns == trained
    assert "training on" not in capsys.readouterr().out


def test_a_study_can_be_shared_out_by_variant_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.format(common=COMMON))
    arguments = [str(file), "--output", str(tmp_path / "runs"), "--split", "val", "--count", "1", "--device", "cpu"]
    assert main([*arguments, "--only", "static:3"]) == 0
    assert set(json.loads((tmp_path / "runs" / "results.json").read_text())) == {"static"}
    assert main([*arguments, "--only", "static:7"]) == 1
    assert "the variants are static, distilled, the seeds 3" in capsys.readouterr().err


def test_an_unknown_study_names_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match="no study 'nothing': neither a file nor one of evidence"):
        load_study("nothing")


def test_the_table_has_the_mean_and_the_range_over_the_seeds() -> None:
    results = {"ours": {"0": {"super": {"AP": 0.4}}, "1": {"super": {"AP": 0.42}}}}
    assert "| ours | super | 41.0 (40.0 to 42.0) | 2 |" in table(results, ("AP",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: aisle-yolo-t\nseeds: [0]\n", "a study has recipe, seeds and variants"),
        ("recipe: aisle-yolo-t\nseeds: []\nvariants: {a: []}\n", "of each at least one"),
        ("recipe: aisle-yolo-t\nseeds: [0]\nvariants: {a: [momentum=1]}\n", "unknown key 'momentum'"),
        ("recipe: aisle-yolo-t\nseeds: [0]\nvariants: {a: []}\nsplit: test\n", "and nothing else"),
    ],
)
def test_a_study_that_cannot_be_used_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_study(str(file))

"""docs/evidence.md: its tables are those of its figures; what is missing or missed is said."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
from random_weights import randomise

from anydepth_perception.aisle import CLASS_NAMES
from training.analysis import evidence
from training.analysis.evidence_tables import NAIVE, OURS, STATIC_BASE, STATIC_FULL, WITHOUT_FINE, bars, blocks, fill
from training.analysis.study import load_study, run_folder
from training.recipes.weights import save_weights

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENTS = {path.stem: json.loads(path.read_text()) for path in (DOCS / "evidence").glob("*.json")}


def test_the_tables_of_the_page_are_those_of_the_figures() -> None:
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    assert fill(page, blocks(DOCUMENTS)) == page


def test_a_page_with_a_mark_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match=r"marks for \['one'\], the tables are \['one', 'two'\]"):
        fill("<!-- table: one -->\n<!-- end -->\n", {"one": "a\n", "two": "b\n"})


def test_filling_again_replaces_what_was_filled() -> None:
    page = fill("before\n<!-- table: one -->\n<!-- end -->\nafter\n", {"one": "| a |\n"})
    assert fill(page, {"one": "| b |\n"}) == "before\n<!-- table: one -->\n| b |\n<!-- end -->\nafter\n"


def test_a_bar_that_is_not_reached_is_missed() -> None:
    worse = copy.deepcopy(DOCUMENTS)
    for of_seed in worse["study"]["results"][OURS].values():
        of_seed["base"]["AP"] = of_seed["super"]["AP"] - 0.031
    worse["cka"][NAIVE] = worse["cka"][OURS]
    reached = {bar.what: bar.reached for bar in bars(worse)}
    assert not reached[f"{OURS}: base against full"]
    assert not reached["lowest CKA, naive joint training"]


def test_runs_are_measured_and_the_page_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("TEST_IMAGES", 2), ("MIXTURE_IMAGES", 1), ("CKA_IMAGES", 2)):
        monkeypatch.setattr(evidence, name, count)
    study = load_study("evidence")
    for variant in (OURS, NAIVE, STATIC_FULL, STATIC_BASE, WITHOUT_FINE):
        recipe = dataclasses.replace(study.recipe_of(variant, 0), image_size=(64, 64))
        model = recipe.build_model(6)
        randomise(model)
        folder = run_folder(tmp_path / "runs", variant, 0)
        folder.mkdir(parents=True)
        save_weights(model, folder / "model.safetensors", recipe, CLASS_NAMES, 1)
        figures = {net: dict.fromkeys(evidence.KEPT, 0.25) for net in recipe.trained_passes}
        (folder / "test-2.json").write_text(json.dumps(figures))
    page = tmp_path / "docs" / "evidence.md"
    page.parent.mkdir()
    page.write_text("".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in blocks(DOCUMENTS)))

    assert evidence.main(["--runs", str(tmp_path / "runs"), "--docs", str(page.parent)]) == 0

    text = page.read_text()
    assert "| FINE's relative gain | above 0 % | +0.00 % | **missed** |" in text
    assert f"| {OURS}: base against full | at least -3.0 | +0.00 | met |" in text
    mixtures = json.loads((page.parent / "evidence" / "mixtures.json").read_text())
    assert len(mixtures[OURS]["0"]) == 256
    for plot in ("cka", "mixtures", "shipped", "samples"):
        assert (page.parent / "evidence" / f"{plot}.png").stat().st_size > 5000


def test_an_unknown_measurement_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evidence.main(["--runs", str(tmp_path), "--docs", str(tmp_path), "--only", "speed"]) == 1
    assert "--only speed: there is none; they are study, cka, errors" in capsys.readouterr().err

"""The analyses' command line: each writes its JSON, table and plot, and refuses what it cannot do in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny_bundle import FULL_AP

from anydepth_perception.aisle import CLASS_NAMES
from anydepth_perception.bundle import Bundle
from training.analyse import main
from training.analysis.depths import space_of
from training.analysis.plots import pareto, read_csv, smooth
from training.analysis.reports import bundle_depths
from training.recipes.recipe import Recipe
from training.recipes.weights import save_weights


def made_up_weights(path: Path, recipe: Recipe) -> str:
    torch.manual_seed(0)
    save_weights(recipe.build_model(len(CLASS_NAMES)), path, recipe, CLASS_NAMES, 0)
    return str(path)


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weights file of a random AnyDepth-YOLO t for small images."""
    return made_up_weights(tmp_path_factory.mktemp("yolo") / "ours.safetensors", Recipe("yolo-t", image_size=(96, 96)))


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, static."""
    path = tmp_path_factory.mktemp("static") / "static.safetensors"
    return made_up_weights(path, Recipe("yolo-t", image_size=(96, 96), any_depth=False))


def is_picture(path: Path) -> bool:
    """Whether a plot was drawn: not one colour, and of some size."""
    image = cv2.imread(str(path))
    return image is not None and min(image.shape[:2]) > 100 and image.std() > 5


def test_cka_of_several_networks(yolo: str, static: str, tmp_path: Path) -> None:
    assert main(["cka", f"ours={yolo}", static, "--count", "1", "--device", "cpu", "--output", str(tmp_path)]) == 0
    values = json.loads((tmp_path / "cka.json").read_text())["cka"]
    assert set(values) == {"ours", "static"}
    assert len(values["static"]["network"]) == 8
    assert "| boundary | ours, network | ours, stage | static, network |" in (tmp_path / "cka.md").read_text()
    assert is_picture(tmp_path / "cka.png")


def test_receptive_fields(yolo: str, tmp_path: Path) -> None:
    assert main(["erf", yolo, "--count", "1", "--device", "cpu", "--output", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "erf.json").read_text())
    assert set(document["growth"]["ours"]) == {"p2-p3", "p3-p4", "p4-p5", "mean"}
    assert is_picture(tmp_path / "erf.png")


def test_errors_of_two_depths(yolo: str, tmp_path: Path) -> None:
    arguments = ["errors", yolo, "--depth", "full,base", "--count", "1", "--device", "cpu"]
    assert main([*arguments, "--score-threshold", "0.001", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "errors.json").read_text())["errors"]
    assert set(rows) == {"full", "base"}
    assert rows["full"]["images"] == 1
    assert is_picture(tmp_path / "errors.png")


def test_samples(yolo: str, tmp_path: Path) -> None:
    assert main(["samples", yolo, "--count", "1", "--device", "cpu", "--output", str(tmp_path)]) == 0
    assert is_picture(tmp_path / "samples.png")


def test_exits_of_a_detr(tmp_path: Path) -> None:
    weights = made_up_weights(tmp_path / "detr.safetensors", Recipe("detr-r18", image_size=(64, 64)))
    arguments = ["exits", weights, "--count", "1", "--device", "cpu", "--score-threshold", "0.001"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "exits.json").read_text())["exits"]
    assert list(rows) == [f"{paths}.d{index}" for paths in ("FFFF.FFFF", "EEEE.EEEE") for index in (1, 2, 3)]
    assert all(row["images"] == 1 for row in rows.values())
    assert "AP with NMS" in (tmp_path / "exits.md").read_text()


def test_exits_of_a_network_without_a_decoder_are_refused(
    yolo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["exits", yolo, "--count", "1", "--device", "cpu", "--output", str(tmp_path)]) == 1
    assert "yolo-t has no decoder exits" in capsys.readouterr().err


def test_one_label_for_two_files_is_refused(yolo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cka", yolo, yolo, "--output", str(tmp_path)]) == 1
    assert "two inputs are called 'ours'" in capsys.readouterr().err


def test_depths_are_drawn_from_the_json_of_the_evaluation(tmp_path: Path) -> None:
    metrics = {
        f"{paths}.d{index}": {"depth": f"{paths}.d{index}", "gflops": cost + index, "AP": 0.1 * index + cost / 100}
        for paths, cost in (("FFFF.FFFF", 4.0), ("FFEE.FFEE", 1.0), ("EEEE.EEEE", 2.0))
        for index in (1, 2, 3)
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert main(["depths", str(tmp_path / "metrics.json"), "--output", str(tmp_path)]) == 0
    assert is_picture(tmp_path / "depths.png")
    document = json.loads((tmp_path / "depths.json").read_text())
    assert [point["depth"] for point in document["ladder"]] == [
        *(f"FFEE.FFEE.d{index}" for index in (1, 2, 3)),
        *("EEEE.EEEE.d3", "FFFF.FFFF.d3"),
    ]
    assert document["lowest_mixture"]["depth"] == "FFEE.FFEE.d2", "d1 is cheaper than the base-net by its exit"
    assert document["lowest_below_base"] == pytest.approx(0.01)
    assert "| lowest mixture | FFEE.FFEE.d2 | 3.000 | 21.0 |" in (tmp_path / "depths.md").read_text()


def test_ladder_without_its_ends_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text('{"base": {"depth": "EEEE.EEEE", "gflops": 1, "AP": 0.3}}')
    assert main(["depths", str(tmp_path / "metrics.json"), "--output", str(tmp_path)]) == 1
    assert "full (FFFF.FFFF) is not among the 1 configurations" in capsys.readouterr().err


def test_depths_are_drawn_from_the_table_of_a_bundle(tiny_bundle_path: Path, tmp_path: Path) -> None:
    assert main(["depths", str(tiny_bundle_path), "--output", str(tmp_path)]) == 0
    depths = bundle_depths(Bundle.load(tiny_bundle_path))
    assert len(depths) == 256
    assert depths["FFFF.FFFF"]["AP"] == FULL_AP


def test_json_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text('{"full": {"AP": 0.3}}')
    assert main(["depths", str(tmp_path / "metrics.json"), "--output", str(tmp_path)]) == 1
    assert "metrics.json lacks 'depth'" in capsys.readouterr().err


@pytest.fixture
def accuracy() -> dict[str, Any]:
    """An accuracy table with two held-out configurations."""
    measured = {"FFFF.FFFF": 0.5, "EEEE.EEEE": 0.4, "FEFE.EEEE": 0.43, "EEEE.FEFE": 0.45}
    return {
        "dataset": "made up",
        "configurations": {depth: {"AP": value, "measured": True} for depth, value in measured.items()},
        "estimate": {"held_out": {"FEFE.EEEE": 0.434, "EEEE.FEFE": 0.448}},
    }


def test_estimates_stand_beside_what_was_measured(accuracy: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "accuracy.json").write_text(json.dumps(accuracy))
    assert main(["estimate", str(tmp_path / "accuracy.json"), "--output", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "estimate.json").read_text())
    assert document["mean_absolute_error"] == pytest.approx(0.003)
    assert document["largest_error"] == pytest.approx(0.004)
    assert is_picture(tmp_path / "estimate.png")


def test_bundle_without_an_estimate_is_refused(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", str(tiny_bundle_path), "--output", str(tmp_path)]) == 1
    assert "lacks 'estimate'" in capsys.readouterr().err


def test_curves_of_two_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = "\n".join(f"{i},{9 / i},{8 / i},{100 / i},0.1" for i in range(1, 30))
        (tmp_path / name / "log.csv").write_text(
            f"iteration,super_class,base_class,gradient_norm,learning_rate\n{rows}\n"
        )
    (tmp_path / "a" / "validation.csv").write_text("iteration,super_AP,base_AP\n10,0.1,0.05\n20,0.2,0.1\n")
    assert main(["curves", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path)]) == 0
    assert is_picture(tmp_path / "curves.png")


def test_run_without_a_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", str(tmp_path), "--output", str(tmp_path)]) == 1
    assert "log.csv" in capsys.readouterr().err


def test_front_leaves_out_what_costs_more_for_less() -> None:
    points = [(3.0, 0.5), (1.0, 0.2), (2.0, 0.1), (2.0, 0.4), (4.0, 0.5)]
    assert pareto(points) == [1, 3, 0]


def test_smoothing_averages_over_the_last_values() -> None:
    assert smooth(np.array([2.0, 4.0, 6.0, 0.0]), 2).tolist() == [2.0, 3.0, 5.0, 3.0]


def test_cell_that_is_no_number_is_none(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("iteration,loss\n1,nan\n2,\n3,0.5\n")
    columns = read_csv(tmp_path / "log.csv")
    assert np.isnan(columns["loss"]).tolist() == [True, True, False]


def test_a_space_is_read_off_configurations_alone() -> None:
    space = space_of(["FFFF.d3", "EFFF.d3", "EFEF.d1"])
    assert [str(space.full), str(space.base)] == ["FFFF.d3", "EFEF.d2"]


def test_where_no_configuration_skips_anything_all_stages_may() -> None:
    assert str(space_of(["FFFF.FFFF"]).base) == "EEEE.EEEE"


def test_configurations_of_different_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="configurations of 4, 8 stages"):
        space_of(["FFFF", "FFFF.FFFF"])

"""Evaluation: COCO's figures equal pycocotools', perfect detections score one, many depths cost no accuracy."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import multiprocessing

from anydepth_perception.detection.detector import Detections
from training.data.aisle import write_coco
from training.data.processes import Processes
from training.evaluate import main
from training.evaluation.coco import (
    METRICS,
    ImageResult,
    Results,
    coco_results,
    coco_truth,
    gather_results,
    merge_results,
    metrics_by_depth,
)
from training.evaluation.depths import depths_of_model
from training.evaluation.images import AisleImages, CocoImages, EvaluationDataError, Truth
from training.evaluation.results import model_results
from training.families import build_model
from training.loop.distributed import join_processes, leave_processes
from training.models.stage import STATIC
from training.recipes.recipe import Recipe

MODELS = Path(__file__).parents[3] / "models"

CLASS_NAMES = ("person", "crate", "cone")


def made_up_truth(image_id: int, count: int, rng: np.random.Generator) -> Truth:
    """Objects of all sizes, a fifth of them crowds."""
    sides = np.exp(rng.uniform(np.log(6), np.log(220), (count, 2)))
    boxes = np.concatenate([rng.uniform(0, 300, (count, 2)), sides], axis=1)
    return Truth(
        image_id, 640, 480, boxes, rng.integers(0, 3, count), sides.prod(axis=1), np.arange(count) % 5 == 4
    )


def made_up_detections(truth: Truth, rng: np.random.Generator) -> Detections:
    """Most objects, twice and moved a little, with scores so coarse that many tie, and some of the wrong class."""
    boxes = np.repeat(truth.boxes_xywh, 2, axis=0)
    boxes = boxes + rng.normal(0, 0.06, boxes.shape) * boxes[:, 2:].repeat(2, axis=1)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.repeat(truth.class_ids, 2)
    labels = np.where(rng.random(len(labels)) < 0.2, 0, labels)
    scores = rng.integers(1, 5, len(boxes)) / 5
    kept = rng.random(len(boxes)) < 0.8
    order = np.argsort(-scores[kept], kind="stable")
    return Detections(
        boxes[kept][order].astype(np.float32),
        scores[kept][order].astype(np.float32),
        labels[kept][order].astype(np.int32),
    )


def made_up_results(num_images: int = 12) -> Results:
    """Images of which every fourth is empty; in one of those something is found."""
    rng = np.random.default_rng(0)
    results = {}
    for image_id in range(1, num_images + 1):
        truth = made_up_truth(image_id, 0 if image_id % 4 == 0 else 10, rng)
        found = made_up_detections(truth if image_id != 4 else made_up_truth(4, 6, rng), rng)
        results[image_id] = ImageResult(truth, {"FFFF.FFFF": found, "EEEE.EEEE": Detections.empty()})
    return results


def by_pycocotools(truth: dict[str, Any], records: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(records), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def test_metrics_equal_pycocotools_with_crowds_empty_images_and_ties() -> None:
    results = made_up_results()
    truth = coco_truth((result.truth for result in results.values()), CLASS_NAMES)
    records = [
        record
        for image_id, result in results.items()
        for record in coco_results(result.detections["FFFF.FFFF"], image_id)
    ]
    assert any(each["iscrowd"] for each in truth["annotations"])
    assert len({each["image_id"] for each in truth["annotations"]}) < len(truth["images"])
    ours = metrics_by_depth(results, CLASS_NAMES)["FFFF.FFFF"]
    assert 0.05 < ours["AP"] < 0.95
    assert [ours[name] for name in METRICS] == pytest.approx(by_pycocotools(truth, records), abs=1e-6)


def test_no_detections_score_zero() -> None:
    assert metrics_by_depth(made_up_results(), CLASS_NAMES)["EEEE.EEEE"] == dict.fromkeys(METRICS, 0.0)


def test_true_boxes_of_aisle_scenes_score_one() -> None:
    images = AisleImages("val", 3)
    results = {}
    for index in range(3):
        truth = images.load(index)[1]
        real = ~truth.crowd
        corners = np.concatenate([truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]], 1)
        found = Detections(corners[real].astype(np.float32), np.ones(real.sum()), truth.class_ids[real])
        results[truth.image_id] = ImageResult(truth, {"full": found})
    assert metrics_by_depth(results, images.class_names)["full"]["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_merged_shards_are_the_unsharded_results_though_samplers_repeat_images(num_shards: int) -> None:
    whole = made_up_results()
    shards = [
        {image_id: result for image_id, result in whole.items() if image_id % num_shards == rank}
        for rank in range(num_shards)
    ]
    shards[-1] |= {1: whole[1]}
    merged = merge_results(reversed(shards))
    assert list(merged) == list(whole)
    assert metrics_by_depth(merged, CLASS_NAMES) == metrics_by_depth(whole, CLASS_NAMES)


def test_shards_of_different_depths_are_refused() -> None:
    result = made_up_results(1)[1]
    other = ImageResult(result.truth, {"full": Detections.empty()})
    with pytest.raises(ValueError, match="image 1 was evaluated at"):
        merge_results([{1: result}, {1: other}])


def _evaluate_a_shard(rank: int, port: int, output: str) -> None:
    import os

    os.environ.update(
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    processes = join_processes("cpu")
    whole = made_up_results()
    mine = {image_id: result for image_id, result in whole.items() if image_id % processes.count == processes.rank}
    metrics = metrics_by_depth(gather_results(mine, processes), CLASS_NAMES)
    leave_processes()
    Path(f"{output}.{rank}").write_text(json.dumps(metrics))


def test_two_processes_each_get_the_metrics_of_one(tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_evaluate_a_shard, (port, str(tmp_path / "metrics")), nprocs=2)
    expected = json.loads(json.dumps(metrics_by_depth(made_up_results(), CLASS_NAMES)))
    assert [json.loads((tmp_path / f"metrics.{rank}").read_text()) for rank in (0, 1)] == [expected, expected]


def test_processes_share_the_images_out() -> None:
    torch.manual_seed(0)
    recipe = Recipe(model="yolo-t", image_size=(64, 64))
    model = recipe.build_model(6).eval()
    images = AisleImages("val", 3, (64, 64))
    shards = []
    for rank in (0, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("training.evaluation.results.gather_results", lambda local, processes: local)
            shards.append(model_results(model, [model.space.full], images, recipe, processes=Processes(rank, 2)))
    assert [list(shard) for shard in shards] == [[1, 3], [2]]


def coco_folder(folder: Path, *, category: str = "crate") -> Path:
    """Two images, the category ids 3 and 90, a crowd, an annotation of an image that is not listed."""
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 90, np.uint8))
    annotations = [
        {"id": 7, "image_id": 20, "category_id": 90, "bbox": [1.5, 2, 10, 20], "area": 150, "iscrowd": 0},
        {"id": 9, "image_id": 20, "category_id": 3, "bbox": [5, 5, 30, 30], "area": 900, "iscrowd": 1},
        {"id": 11, "image_id": 4711, "category_id": 3, "bbox": [0, 0, 3, 3], "area": 9},
    ]
    document = {
        "images": [
            {"id": 30, "file_name": "b.png", "width": 60, "height": 40},
            {"id": 20, "file_name": "a.png", "width": 60, "height": 40},
        ],
        "annotations": annotations,
        "categories": [{"id": 90, "name": category}, {"id": 3, "name": "person"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def test_coco_categories_go_by_name_whatever_their_ids(tmp_path: Path) -> None:
    images = CocoImages(coco_folder(tmp_path), tmp_path, CLASS_NAMES)
    image, truth = images.load(0)
    assert image.shape == (40, 60, 3)
    assert (truth.image_id, truth.class_ids.tolist(), truth.crowd.tolist()) == (20, [1, 0], [False, True])
    assert truth.boxes_xywh[0].tolist() == [1.5, 2, 10, 20]
    assert truth.areas[0] == 150
    assert len(images.load(1)[1].boxes_xywh) == 0


def test_category_that_the_network_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationDataError, match="'zebra' is none of the network's: person, crate, cone"):
        CocoImages(coco_folder(tmp_path, category="zebra"), tmp_path, CLASS_NAMES)


def test_missing_image_is_named(tmp_path: Path) -> None:
    images = CocoImages(coco_folder(tmp_path), tmp_path, CLASS_NAMES)
    (tmp_path / "a.png").unlink()
    with pytest.raises(EvaluationDataError, match=r"a\.png"):
        images.load(0)


def test_static_network_has_one_configuration_among_all() -> None:
    assert list(depths_of_model("all", build_model("yolo-n", 3, any_depth=STATIC))) == ["FFFF.FFFF"]


def test_network_with_two_stages_to_skip_has_four() -> None:
    assert len(depths_of_model("all,base", build_model("yolo-n", 3))) == 2**2 + 1


def test_weights_and_bundle_have_the_same_figures_on_rendered_and_on_written_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = write_coco("val", tmp_path, 2)
    written = ["--coco", str(annotations), "--images", str(tmp_path / "val")]
    in_torch = ["--weights", str(MODELS / "aisle-yolo-t.safetensors"), "--device", "cpu", "--batch-size", "2"]
    in_bundle = ["--bundle", str(MODELS / "aisle-yolo-t.anydepth")]
    figures = []
    for source in (in_torch + written, in_bundle + written, [*in_bundle, "--split", "val", "--count", "2"]):
        output, table = tmp_path / "metrics.json", tmp_path / "metrics.md"
        capsys.readouterr()
        files = ["--output", str(output), "--markdown", str(table)]
        assert main([*source, *files, "--depth", "base,EFEF.FEFE", "--json"]) == 0
        figures.append(json.loads(output.read_text()))
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == figures[-1]
        assert "| EFEF.FEFE | EFEF.FEFE |" in table.read_text()
    assert figures[1]["base"]["AP"] > 0.2
    assert figures[1] == figures[2]
    for name, metrics in figures[0].items():
        assert metrics["gflops"] == pytest.approx(figures[1][name]["gflops"], rel=1e-3)
        assert [metrics[key] for key in METRICS] == pytest.approx([figures[1][name][key] for key in METRICS], abs=5e-3)


def test_network_of_other_classes_needs_its_own_images(
    tiny_bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(tiny_bundle_path)]) == 1
    assert "the network knows person, crate, cone; aisle scenes have person," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "no-such-bundle"], "no-such-bundle"),
        (["--weights", "no-such.safetensors"], "no-such.safetensors"),
        (["--bundle", "aisle-yolo-t", "--count", "501"], "it has 1 to 500"),
        (["--bundle", "aisle-yolo-t", "--depth", "deep"], "'deep' is not a depth configuration"),
        (["--bundle", "aisle-yolo-t", "--coco", "x.json"], "--coco and --images belong together"),
    ],
)
def test_wrong_arguments_end_with_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err

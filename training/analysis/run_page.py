"""One HTML page about a training run: curves, AP at each depth and of each class, and the worst pictures."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from anydepth_perception.depth.space import DepthConfig, DepthSpace
from training.analysis.errors import IOU_THRESHOLD, SCORE_THRESHOLD, count_errors, match
from training.analysis.plots import training_curves
from training.analysis.samples import draw
from training.evaluation.coco import Results, coco_metrics, coco_results, coco_truth, metrics_by_depth
from training.evaluation.depths import gflops_of
from training.evaluation.images import EvaluationImages
from training.evaluation.results import model_results
from training.loop.trainer import validation_images
from training.recipes.weights import Weights, load_weights

WORST = 12
"""Pictures that are shown."""

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.2em .9em;border-bottom:1px solid #ccc;text-align:right}td:first-child{text-align:left}"
    "img{max-width:100%}figure{display:inline-block;margin:.4em;width:30%;vertical-align:top}figcaption{font-size:85%}"
)


def write_run_page(run: Path, output: Path) -> Path:
    """Evaluates the weights of a finished run on its validation set and writes `output/report.html`; returns its path.

    The page stands alone: pictures are inside of it.

    Raises:
        ValueError: the run has no weights yet, or validates on nothing.
        OSError: its logs cannot be read, or the page cannot be written.
    """
    if not (run / "model.safetensors").is_file():
        raise ValueError(f"{run} has no model.safetensors: the run is not finished; the same training.train goes on")
    weights = load_weights(run / "model.safetensors")
    images = validation_images(weights.recipe, weights.class_names)
    if images is None:
        raise ValueError(f"{run}: its recipe has no coco.validation_annotations to judge it by")
    configs = depth_ladder(weights.model.space)
    results = model_results(weights.model, configs, images, weights.recipe)
    ends = {"full": str(weights.model.space.full), "base": str(weights.model.space.base)}
    sections = [
        f"<h1>{html.escape(run.name)}</h1>",
        f"<p>{_about(weights)}; validated on {html.escape(images.description)}.</p>",
        "<h2>Depths</h2>",
        _depth_table(weights, configs, results, images.class_names),
        "<h2>Classes</h2>",
        _class_table(results, ends, images.class_names),
        f"<h2>Errors at score {SCORE_THRESHOLD}</h2>",
        _error_table(results, ends),
        "<h2>Curves</h2>",
        _curves(run),
        f"<h2>The {min(WORST, len(images))} worst pictures at full depth</h2>",
        "<p>White: what is there. Coloured: what was found.</p>",
        *_worst(results, ends["full"], images),
    ]
    output.mkdir(parents=True, exist_ok=True)
    path = output / "report.html"
    head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(run.name)}</title><style>{STYLE}</style>'
    path.write_text("\n".join([head, *sections]) + "\n", encoding="utf-8")
    return path


def depth_ladder(space: DepthSpace) -> list[DepthConfig]:
    """Full, then one full path less at a time from the last stage on, down to base; exits of a decoder stay full's."""
    ladder, paths = [space.full], list(space.full.full_paths)
    for stage in reversed(range(len(paths))):
        if not space.base.full_paths[stage]:
            paths[stage] = False
            ladder.append(DepthConfig(tuple(paths), space.full.exit))
    return list(dict.fromkeys([*ladder, space.base]))


def class_metrics(results: Results, depth: str, class_names: Sequence[str]) -> dict[str, tuple[int, float, float]]:
    """Objects, AP and AP50 of each class at one configuration; of a class without an object -1."""
    truth = coco_truth((result.truth for result in results.values()), class_names)
    records = [
        record
        for image_id, result in results.items()
        for record in coco_results(result.detections[depth], image_id)
    ]
    found = {}
    for category in truth["categories"]:
        number = category["id"]
        own = [entry for entry in truth["annotations"] if entry["category_id"] == number]
        objects = sum(not entry["iscrowd"] for entry in own)
        if not objects:
            found[category["name"]] = 0, -1.0, -1.0
            continue
        alone = {**truth, "annotations": own, "categories": [category]}
        metrics = coco_metrics(alone, [record for record in records if record["category_id"] == number])
        found[category["name"]] = objects, metrics["AP"], metrics["AP50"]
    return found


def worst_images(results: Results, depth: str, count: int) -> list[tuple[int, int, int]]:
    """Image id, objects missed and false detections of the images with the most mistakes, the worst first."""
    rows = []
    for image_id, result in results.items():
        matched, false = match(result.truth, result.detections[depth], SCORE_THRESHOLD, IOU_THRESHOLD)
        rows.append((image_id, int((~result.truth.crowd).sum()) - matched, len(false)))
    return sorted(rows, key=lambda row: (-row[1] - row[2], row[0]))[:count]


def _about(weights: Weights) -> str:
    recipe = weights.recipe
    height, width = recipe.image_size
    return f"{recipe.model}, {width}x{height} pixels, {weights.iteration} iterations of {recipe.batch_size} pictures"


def _depth_table(
    weights: Weights, configs: Sequence[DepthConfig], results: Results, class_names: Sequence[str]
) -> str:
    metrics, gflops = metrics_by_depth(results, class_names), gflops_of(weights, configs)
    names = {str(weights.model.space.base): "base", str(weights.model.space.full): "full"}
    rows = [
        [
            f"{depth} {names.get(depth, '')}",
            f"{gflops[depth]:.2f}",
            *(_percent(metrics[depth][key]) for key in ("AP", "AP50", "APs", "APm", "APl")),
        ]
        for depth in map(str, configs)
    ]
    return _table(["depth", "GFLOPs", "AP", "AP50", "small", "medium", "large"], rows)


def _class_table(results: Results, ends: Mapping[str, str], class_names: Sequence[str]) -> str:
    found = {end: class_metrics(results, depth, class_names) for end, depth in ends.items()}
    rows = [
        [name, str(found["full"][name][0]), *(_percent(found[end][name][which]) for end in ends for which in (1, 2))]
        for name in class_names
    ]
    return _table(["class", "objects", *(f"{key} {end}" for end in ends for key in ("AP", "AP50"))], rows)


def _error_table(results: Results, ends: Mapping[str, str]) -> str:
    rows = []
    for end, depth in ends.items():
        row = count_errors(results, depth).row()
        counts = [str(int(row[key])) for key in ("true_positives", "false_positives", "false_negatives")]
        rows.append([end, *counts, _percent(row["precision"]), _percent(row["recall"])])
    return _table(["depth", "found", "false", "missed", "precision", "recall"], rows)


def _curves(run: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        training_curves({run.name: run}, path)
        return _image(path.read_bytes(), "png")


def _worst(results: Results, depth: str, images: EvaluationImages) -> Iterable[str]:
    wanted = {image_id: (missed, false) for image_id, missed, false in worst_images(results, depth, WORST)}
    place = {image_id: index for index, image_id in enumerate(results)}
    for image_id, (missed, false) in wanted.items():
        pixels, truth = images.load(place[image_id])
        drawn = draw(pixels, truth, results[image_id].detections[depth], images.class_names)
        content = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        yield (
            f"<figure>{_image(np.asarray(content).tobytes(), 'jpeg')}"
            f"<figcaption>image {image_id}: {missed} missed, {false} false</figcaption></figure>"
        )


def _image(content: bytes, kind: str) -> str:
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", line(header, "th"), *(line(row, "td") for row in rows), "</table>"])

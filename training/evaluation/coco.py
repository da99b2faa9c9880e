"""What was found in each image at each depth, the same from several processes, and COCO's figures of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from faster_coco_eval import COCO, COCOeval_faster
from torch import distributed

from anydepth_perception.detection.detector import Detections
from training.evaluation.images import Truth
from training.loop.distributed import Processes

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve figures, in [0, 1]; small, medium and large go by area in source pixels (32^2 and 96^2).

A figure of which there is no object (no large one, say) is -1."""


@dataclass(frozen=True)
class ImageResult:
    """What is in an image and what was found in it, by the text of the depth configuration."""

    truth: Truth
    detections: Mapping[str, Detections]


Results = dict[int, ImageResult]
"""By image id, ascending."""


def merge_results(shards: Iterable[Mapping[int, ImageResult]]) -> Results:
    """The results of several processes as one process would have them.

    An image that several evaluated, as samplers hand some out twice to give all processes equally many, counts once.

    Raises:
        ValueError: two shards evaluated different configurations.
    """
    merged: Results = {}
    for shard in shards:
        for image_id, result in shard.items():
            known = merged.setdefault(image_id, result)
            if known.detections.keys() != result.detections.keys():
                raise ValueError(
                    f"image {image_id} was evaluated at {', '.join(known.detections)} by one process and at "
                    f"{', '.join(result.detections)} by another"
                )
    return dict(sorted(merged.items()))


def gather_results(local: Mapping[int, ImageResult], processes: Processes) -> Results:
    """The results of all processes, in each of them."""
    if processes.count == 1:
        return merge_results([local])
    shards: list[Mapping[int, ImageResult]] = [{}] * processes.count
    distributed.all_gather_object(shards, local)
    return merge_results(shards)


def coco_results(detections: Detections, image_id: int) -> list[dict[str, Any]]:
    """Detections as COCO result records; category ids count from 1."""
    boxes = detections.boxes_xyxy
    sizes = boxes[:, 2:] - boxes[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": int(label) + 1,
            "bbox": [float(x), float(y), float(w), float(h)],
            "score": float(score),
        }
        for (x, y), (w, h), score, label in zip(
            boxes[:, :2], sizes, detections.scores, detections.class_ids, strict=True
        )
    ]


def coco_truth(truths: Iterable[Truth], class_names: Sequence[str]) -> dict[str, Any]:
    """COCO instances (a dict as in its JSON); category ids are class ids + 1."""
    images, annotations = [], []
    for truth in truths:
        images.append({"id": truth.image_id, "width": truth.width, "height": truth.height})
        for box, class_id, area, crowd in zip(
            truth.boxes_xywh.tolist(), truth.class_ids.tolist(), truth.areas.tolist(), truth.crowd, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": class_id + 1,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(class_names)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def coco_metrics(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """The twelve COCO figures; all zero where nothing was detected."""
    if not results:
        return dict.fromkeys(METRICS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(ground_truth)
        evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(METRICS, evaluation.stats, strict=False)}


def metrics_by_depth(results: Results, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """COCO's figures of every configuration, by its text, in the order in which it was evaluated."""
    truth = coco_truth((result.truth for result in results.values()), class_names)
    names = next(iter(results.values())).detections.keys() if results else ()
    return {
        name: coco_metrics(
            truth,
            [
                record
                for image_id, result in results.items()
                for record in coco_results(result.detections[name], image_id)
            ],
        )
        for name in names
    }

"""COCO metrics of a bundle, or of a network in training, at one or several depth configurations."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from tqdm import tqdm

from anydepth_perception.aisle import AisleFrame
from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.detector import Detections, Detector
from anydepth_perception.postprocess import Postprocessor
from anydepth_perception.preprocess import Preprocessor
from training.data.aisle import SPLITS, coco_instances, render_image
from training.float16_emulation import emulate_float16
from training.models.detector import AnyDepthDetector
from training.recipe import Recipe

SCORE_THRESHOLD = 0.001
MAX_DETECTIONS = 100
NMS_IOU_THRESHOLD = 0.6
"""Chosen on the validation split: the AP of 0.7, more AP50, and fewer doubles for those who look at the boxes."""

PRECISIONS = ("float32", "float16")
"""`float16` is emulated; INT8 is a bundle of its own."""

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve figures, in [0, 1]; small, medium and large go by area in source pixels (32^2 and 96^2)."""

Detect = Callable[[np.ndarray, DepthConfig], Detections]


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


def evaluate(
    detect: Detect,
    configs: Sequence[DepthConfig],
    split: str,
    count: int,
    size: tuple[int, int] = (320, 320),
    *,
    progress: bool = False,
) -> dict[str, dict[str, float]]:
    """COCO metrics per configuration (by its text) on the first `count` images, `size` (width, height), of a split."""
    results: dict[str, list[dict[str, Any]]] = {str(config): [] for config in configs}

    def frames() -> Iterator[AisleFrame]:
        for index in tqdm(range(count), unit="image", disable=not progress):
            frame = render_image(split, index, size)
            for config in configs:
                results[str(config)] += coco_results(detect(frame.image, config), image_id=index + 1)
            yield frame

    ground_truth = coco_instances(frames(), split, size)
    return {name: coco_metrics(ground_truth, found) for name, found in results.items()}


def evaluate_bundle(
    bundle: Bundle,
    configs: Sequence[DepthConfig],
    split: str,
    count: int,
    *,
    precision: str = "float32",
    progress: bool = False,
) -> dict[str, dict[str, float]]:
    """COCO metrics of a bundle on ONNX Runtime, through the detector that the node runs, in one of `PRECISIONS`."""
    if precision == "float16":
        with tempfile.TemporaryDirectory() as folder:
            rounded = emulate_float16(bundle, Path(folder) / f"{bundle.name}-float16.anydepth")
            return evaluate_bundle(rounded, configs, split, count, progress=progress)
    detector = Detector(bundle, create_backend("onnxruntime"), configs=configs, multi_label=True)

    def detect(image: np.ndarray, config: DepthConfig) -> Detections:
        return detector.detect(
            image, config, score_threshold=SCORE_THRESHOLD, max_detections=MAX_DETECTIONS
        ).detections

    return evaluate(detect, configs, split, count, progress=progress)


def evaluate_model(
    model: AnyDepthDetector, configs: Sequence[DepthConfig], split: str, count: int, recipe: Recipe
) -> dict[str, dict[str, float]]:
    """COCO metrics of a network in PyTorch, with the pre- and post-processing of the run time."""
    preprocess = Preprocessor(*recipe.image_size, resize=recipe.resize)
    postprocess = Postprocessor(nms=model.num_exits == 0, iou_threshold=NMS_IOU_THRESHOLD, multi_label=True)
    scale = torch.tensor([*reversed(recipe.image_size)] * 2, dtype=torch.float32)
    training = model.training
    model.eval()

    @torch.no_grad()
    def detect(image: np.ndarray, config: DepthConfig) -> Detections:
        geometry = preprocess(image)
        images = torch.from_numpy(preprocess.buffer).permute(0, 3, 1, 2).float() / 255
        outputs = model(images, config)
        return postprocess(
            (outputs["boxes"] / scale).numpy(),
            outputs["logits"].numpy(),
            geometry,
            score_threshold=SCORE_THRESHOLD,
            max_detections=MAX_DETECTIONS,
        )

    try:
        return evaluate(detect, configs, split, count)
    finally:
        model.train(training)


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.evaluate --bundle aisle-yolo-t --depth full,base --split test --json`."""
    parser = argparse.ArgumentParser(prog="training.evaluate", description=__doc__)
    parser.add_argument("--bundle", required=True, help="bundle folder, or the name of a shipped bundle")
    parser.add_argument("--depth", default="full,base", help="configurations, separated by commas (default: full,base)")
    parser.add_argument("--split", default="test", choices=sorted(SPLITS))
    parser.add_argument("--count", type=int, default=500, help="images from the start of the split (default: 500)")
    parser.add_argument(
        "--precision", default="float32", choices=PRECISIONS, help="float16 rounds every tensor (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON on the last line")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error(f"--count is {options.count}; it must be at least 1")
    names = options.depth.split(",")
    try:
        bundle = Bundle.load(find_bundle(options.bundle))
        configs = [DepthConfig.parse(name, bundle.num_exits) for name in names]
        metrics = evaluate_bundle(
            bundle,
            configs,
            options.split,
            options.count,
            precision=options.precision,
            progress=sys.stderr.isatty(),
        )
    except (BundleError, DepthConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    named = {name: metrics[str(config)] for name, config in zip(names, configs, strict=True)}
    print(f"{options.bundle}, {options.split} split, {options.count} images, {options.precision}")
    print("| depth | " + " | ".join(METRICS[:6]) + " |\n|---|" + "---|" * 6)
    for name, values in named.items():
        print(f"| {name} | " + " | ".join(f"{100 * values[key]:.1f}" for key in METRICS[:6]) + " |")
    if options.output:
        options.output.write_text(json.dumps(named, indent=1) + "\n")
    if options.json:
        print(json.dumps(named))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a bundle, or a network in PyTorch, finds in images at depth configurations, and COCO's figures of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.detection.detector import Detections
from anydepth_perception.detection.postprocess import Postprocessor
from anydepth_perception.detection.preprocess import Geometry, Preprocessor
from training.data.processes import ALONE, Processes
from training.evaluation.coco import ImageResult, Results, gather_results, metrics_by_depth
from training.evaluation.float16_emulation import emulate_float16
from training.evaluation.images import EvaluationImages, Truth
from training.evaluation.network import BundleNetwork, Network, TorchNetwork, walk
from training.families import family_of
from training.models.detector import AnyDepthDetector
from training.recipes.recipe import Recipe

SCORE_THRESHOLD = 0.001
MAX_DETECTIONS = 100
PRECISIONS = ("float32", "float16")
"""`float16` is emulated; INT8 is a bundle of its own."""


def detect_all(
    network: Network,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    preprocess: Preprocessor,
    postprocess: Postprocessor,
    *,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Results:
    """What `network` finds in all images at each of `configs`; every process gets the results of all.

    Args:
        network: runs on batches of its size.
        configs: each at most once.
        images: process i of n takes every n-th image from the i-th on.
        preprocess: fits an image to the network.
        postprocess: decodes the raw outputs.
        processes: who shares the work.
        progress: show a bar.
    """
    local: Results = {}
    mine = range(processes.rank, len(images), processes.count)
    bar = tqdm(total=len(mine), unit="image", disable=not progress)
    for start in range(0, len(mine), network.batch_size):
        fitted, geometries, truths = [], [], []
        for index in mine[start : start + network.batch_size]:
            image, truth = images.load(index)
            geometries.append(preprocess(image))
            fitted.append(preprocess.buffer.copy())
            truths.append(truth)
        network.load(np.concatenate(fitted))
        local |= _detect_batch(network, configs, postprocess, geometries, truths)
        bar.update(len(truths))
    bar.close()
    return gather_results(local, processes)


def _detect_batch(
    network: Network,
    configs: Sequence[DepthConfig],
    postprocess: Postprocessor,
    geometries: Sequence[Geometry],
    truths: Sequence[Truth],
) -> Results:
    found: list[dict[str, Detections]] = [{} for _ in truths]
    for same in walk(network, configs):
        boxes, logits = network.outputs()
        for row, geometry in enumerate(geometries):
            detections = postprocess(
                boxes[row : row + 1],
                logits[row : row + 1],
                geometry,
                score_threshold=SCORE_THRESHOLD,
                max_detections=MAX_DETECTIONS,
            )
            found[row].update({str(config): detections for config in same})
    return {
        truth.image_id: ImageResult(truth, {str(config): by_depth[str(config)] for config in configs})
        for truth, by_depth in zip(truths, found, strict=True)
    }


def bundle_results(
    bundle: Bundle,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    *,
    precision: str = "float32",
    processes: Processes = ALONE,
    progress: bool = False,
) -> Results:
    """What a bundle finds on ONNX Runtime in one of `PRECISIONS`, with the node's pre- and post-processing."""
    if precision == "float16":
        with tempfile.TemporaryDirectory() as folder:
            rounded = emulate_float16(bundle, Path(folder) / f"{bundle.name}-float16.anydepth")
            return bundle_results(rounded, configs, images, processes=processes, progress=progress)
    manifest = bundle.manifest
    preprocess = Preprocessor(
        manifest.input.height, manifest.input.width, resize=manifest.input.resize, pad_value=manifest.input.pad_value
    )
    postprocess = Postprocessor(
        nms=manifest.postprocess.nms, iou_threshold=manifest.postprocess.iou_threshold, multi_label=True
    )
    network = BundleNetwork(bundle, create_backend("onnxruntime"))
    return detect_all(network, configs, images, preprocess, postprocess, processes=processes, progress=progress)


def model_results(
    model: AnyDepthDetector,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    recipe: Recipe,
    *,
    batch_size: int = 1,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Results:
    """What a network in PyTorch finds, where it is and in float32, as its bundle would."""
    for config in configs:
        model.check_config(config)
    preprocess = Preprocessor(*recipe.image_size, resize=recipe.resize)
    needs = family_of(model.name).outputs
    postprocess = Postprocessor(nms=needs.nms, iou_threshold=needs.iou_threshold, multi_label=True)
    network = TorchNetwork(model, recipe.image_size, batch_size)
    return detect_all(network, configs, images, preprocess, postprocess, processes=processes, progress=progress)


Metrics = dict[DepthConfig, dict[str, float]]
"""COCO's figures of configurations, by the names of `training.evaluation.coco.METRICS`."""


def bundle_metrics(
    bundle: Bundle,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    *,
    precision: str = "float32",
    processes: Processes = ALONE,
    progress: bool = False,
) -> Metrics:
    """COCO's figures of a bundle, as `bundle_results` runs it; of several processes the first alone has them."""
    results = bundle_results(bundle, configs, images, precision=precision, processes=processes, progress=progress)
    return _metrics(results, configs, images, processes)


def model_metrics(
    model: AnyDepthDetector,
    configs: Sequence[DepthConfig],
    images: EvaluationImages,
    recipe: Recipe,
    *,
    batch_size: int = 1,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Metrics:
    """COCO's figures of a network in PyTorch, as `model_results` runs it; of several processes only the first's."""
    results = model_results(
        model, configs, images, recipe, batch_size=batch_size, processes=processes, progress=progress
    )
    return _metrics(results, configs, images, processes)


def _metrics(
    results: Results, configs: Sequence[DepthConfig], images: EvaluationImages, processes: Processes
) -> Metrics:
    if not processes.first:
        return {}
    metrics = metrics_by_depth(results, images.class_names)
    return {config: metrics[str(config)] for config in configs}

"""A DETR bundle in the detector node: exits by parameter, every query's box published, nothing suppressed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from ros_processes import RELIABLE, Observer, image_message, stamped, values_of
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, write_bundle
from anydepth_perception.detection.detector import Detector
from anydepth_perception.detection.images import decode
from training.export.manifest import manifest_of
from training.export.segments import export_segments
from training.families import build_model
from training.recipes.recipe import Recipe

CLASS_NAMES = ["person", "pallet"]
MAX_DETECTIONS = 50


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    """AnyDepth-DETR R18 with random weights; box heads that move, so that exits differ."""
    torch.manual_seed(0)
    model = build_model("detr-r18", len(CLASS_NAMES)).eval()
    for head in model.decoder.box:
        torch.nn.init.normal_(head.layers[-1].weight, std=0.2)
    recipe = Recipe(model="detr-r18", image_size=(128, 160))
    models, gflops = export_segments(model, recipe.image_size)
    path = tmp_path_factory.mktemp("bundles") / "random-detr.anydepth"
    return write_bundle(path, manifest_of("random-detr", model, recipe, CLASS_NAMES, gflops, {"seed": 0}), models)


@pytest.fixture(scope="module")
def active(bundle, module_start, node_arguments):
    """A running detector with the bundle, and the observer of all tests here.

    Without a cache, since writing eight engines of 80 MB takes as long as building them.
    """
    module_start(
        *node_arguments(
            model=str(bundle.path),
            cache_dir="none",
            image_qos="reliable",
            score_threshold=0.0,
            max_detections=MAX_DETECTIONS,
        )
    )
    observer = Observer()
    observer.wait_for_state("active")
    yield observer
    observer.close()


@pytest.mark.parametrize("depth", ["FFFF.FFFF.d3", "EEEE.EEEE.d2", "FEFE.EFEF.d1"])
def test_the_node_publishes_what_the_exit_of_the_configuration_finds(active, bundle, depth):
    assert active.set_parameter("depth", depth).successful
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")
    images = active.publisher(Image, "image_raw", RELIABLE)
    message = image_message(stamped(0), seed=3)
    config = bundle.space.parse(depth)
    detector = Detector(bundle, create_backend("onnxruntime"), configs=[config])
    expected = detector.detect(decode(message).image, config, score_threshold=0.0, max_detections=MAX_DETECTIONS)
    reports = active.collect(DiagnosticStatus, "/detector/frames")
    active.wait_for_publisher("/detector/frames")

    def is_taken() -> bool:  # one that is not of the ladder is built first
        images.publish(message)
        return bool(reports) and values_of(reports[-1])["depth"] == str(config)

    active.spin_until(is_taken, "a frame at the depth")
    count = len(detections)
    images.publish(message)
    active.spin_until(lambda: len(detections) > count, "detections of a frame at the depth")
    published = [detection.bbox for detection in detections[-1].detections]
    found = [(box.center.position.x, box.center.position.y, box.size_x, box.size_y) for box in published]
    boxes = expected.detections.boxes_xyxy
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    assert len(found) == MAX_DETECTIONS
    np.testing.assert_allclose(found, centred, atol=0.05)


def test_an_exit_that_the_decoder_lacks_is_refused(active):
    answer = active.set_parameter("depth", "FFFF.FFFF.d4")
    assert not answer.successful
    assert "d1 to d3" in answer.reason

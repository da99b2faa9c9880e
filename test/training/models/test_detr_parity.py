"""AnyDepth-DETR against Hugging Face's RTDetr, every parameter and running statistic random, at every decoder exit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import RTDetrForObjectDetection

from training.bench.huggingface import random_rtdetr
from training.data.coco_names import COCO_NAMES
from training.families import build_model
from training.models.batchnorm import SwitchableBatchNorm2d
from training.models.decoder import NUM_QUERIES
from training.models.detr import HEAD_INPUTS, SIZES, AnyDepthDetr
from training.models.detr_convert import from_huggingface
from training.models.stage import AnyDepthSettings

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}

IMAGE_SEEDS = {
    ("r18", (640, 640)): 2,
    ("r18", (480, 640)): 2,
    ("r34", (640, 640)): 2,
    ("r34", (480, 640)): 4,
    ("r50", (640, 640)): 0,
    ("r50", (480, 640)): 1,
    ("r101", (640, 640)): 2,
    ("r101", (480, 640)): 0,
}
"""Images with a clear gap between the last query that is selected and the first that is not."""

CLEAR_GAP = 1e-4
"""More than ten times what float32 moves a score of query selection."""

Networks = tuple[str, RTDetrForObjectDetection, AnyDepthDetr]


def convert(theirs: RTDetrForObjectDetection, size: str, *, any_depth: bool = False) -> AnyDepthDetr:
    model = build_model(f"detr-{size}", len(COCO_NAMES), fine=None, any_depth=AnyDepthSettings(any_depth))
    assert isinstance(model, AnyDepthDetr)
    model.load_state_dict(from_huggingface(theirs.state_dict(), model).state)
    return model.eval()


@pytest.fixture(scope="module", params=SIZES)
def networks(request: pytest.FixtureRequest) -> Iterator[Networks]:
    theirs = random_rtdetr(request.param, seed=1)
    yield request.param, theirs, convert(theirs, request.param)


def paired(theirs: Any, exit_index: int, ours: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Rows [Q, C + 4] of logits and boxes, theirs and ours, each of theirs beside the nearest of ours.

    The order of two queries whose scores differ by rounding alone is nobody's business; that none is used twice
    shows that both selected the same.
    """
    expected = torch.cat([theirs.intermediate_logits, theirs.intermediate_reference_points], dim=3)[0, exit_index - 1]
    actual = torch.cat([ours["logits"], ours["boxes_cxcywh"]], dim=2)[0]
    order = torch.cdist(expected, actual).argmin(dim=1)
    assert len(order.unique()) == NUM_QUERIES
    return expected, actual[order]


@pytest.mark.parametrize("image_size", [(640, 640), (480, 640)], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_logits_and_boxes_of_every_exit_are_hugging_faces(
    networks: Networks, dtype: torch.dtype, image_size: tuple[int, int]
) -> None:
    size, theirs, ours = networks[0], networks[1].to(dtype), networks[2].to(dtype)
    generator = torch.Generator().manual_seed(IMAGE_SEEDS[size, image_size])
    images = torch.rand(1, 3, *image_size, generator=generator).to(dtype)
    with torch.no_grad():
        expected = theirs(images)
        maps = ours.features(images, ours.space.full)
        scores = expected.enc_outputs_class.amax(dim=2)[0].sort(descending=True).values
        assert scores[NUM_QUERIES - 1] - scores[NUM_QUERIES] > CLEAR_GAP, "choose another image seed"
        for exit_index in range(1, ours.num_exits + 1):
            outputs = ours.decoder([maps[name] for name in HEAD_INPUTS], exit_index)
            torch.testing.assert_close(*paired(expected, exit_index, outputs), rtol=0, atol=TOLERANCE[dtype])


def test_queries_without_a_valid_anchor_are_hugging_faces() -> None:
    """At 448x448 the cells along the border of P3 have none; with these weights all of them score best."""
    num_border = 4 * (448 // 8 - 1)
    theirs = random_rtdetr("r18", seed=3).double()
    ours = convert(theirs, "r18").double()
    images = torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        expected = theirs(images)
        assert (expected.enc_topk_bboxes == 1).all(dim=2).sum() == num_border < NUM_QUERIES
        maps = ours.features(images, ours.space.full)
        for exit_index in range(1, ours.num_exits + 1):
            outputs = ours.decoder([maps[name] for name in HEAD_INPUTS], exit_index)
            # Double precision leaves no doubt about the order, but for border cells, which are all alike.
            logits, boxes = expected.intermediate_logits, expected.intermediate_reference_points
            torch.testing.assert_close(outputs["logits"], logits[:, exit_index - 1], rtol=0, atol=1e-8)
            torch.testing.assert_close(outputs["boxes_cxcywh"], boxes[:, exit_index - 1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", SIZES)
def test_super_net_is_the_static_network_bit_for_bit(size: str) -> None:
    theirs = random_rtdetr(size, seed=1)
    static, any_depth = convert(theirs, size), convert(theirs, size, any_depth=True)
    for module in any_depth.modules():
        if isinstance(module, SwitchableBatchNorm2d):
            nn.init.constant_(module.essential.weight, float("nan"))
    images = torch.rand(1, 3, 160, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, actual = static(images), any_depth(images)
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name

"""Contrastive denoising: groups, noise of positives and negatives, flipped labels, padding, and who sees whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.models.denoising import DenoisingQueries, attention_mask, denoising_queries

BOX = [0.5, 0.4, 0.2, 0.1]
"""In the middle, so that no noise reaches the border of the image."""


def queries_of(counts: list[int], *, num_classes: int = 6, num_denoising: int = 100, seed: int = 0) -> DenoisingQueries:
    """Noisy copies of `BOX`, labelled 0, 1, 2 ..., as many per image as `counts` says."""
    torch.manual_seed(seed)
    labels = [torch.arange(count) % num_classes for count in counts]
    boxes = [torch.tensor(BOX).repeat(count, 1) for count in counts]
    queries = denoising_queries(labels, boxes, num_classes, num_denoising=num_denoising)
    assert queries is not None
    return queries


def is_negative(queries: DenoisingQueries, largest: int) -> Tensor:
    """[D], by the order of positives and negatives inside the groups."""
    return torch.tensor([False] * largest + [True] * largest).repeat(queries.num_groups)


def corner_shifts(boxes: Tensor, box: list[float]) -> Tensor:
    """How far the corners of noisy boxes [..., 4] lie from those of `box`, in half sides: [..., 4]."""
    cx, cy, w, h = box
    low = boxes[..., :2] - boxes[..., 2:] / 2 - torch.tensor([cx - w / 2, cy - h / 2])
    high = boxes[..., :2] + boxes[..., 2:] / 2 - torch.tensor([cx + w / 2, cy + h / 2])
    return torch.cat([low, high], dim=-1) / torch.tensor([w / 2, h / 2] * 2)


@pytest.mark.parametrize(
    ("counts", "groups"), [([1], 100), ([3, 1], 33), ([7, 0, 2], 14), ([100], 1), ([60, 40], 1), ([130], 1)]
)
def test_groups_are_as_many_as_a_hundred_positives_allow(counts: list[int], groups: int) -> None:
    queries = queries_of(counts)
    assert queries.num_groups == groups
    assert queries.labels.shape == (len(counts), 2 * max(counts) * groups)
    assert queries.boxes.shape == (*queries.labels.shape, 4)


def test_number_of_positives_aimed_at_can_be_set() -> None:
    assert queries_of([4, 2], num_denoising=9).num_groups == 2


@pytest.mark.parametrize("counts", [[0], [0, 0], []])
def test_a_batch_without_boxes_has_no_denoising_queries(counts: list[int]) -> None:
    labels = [torch.zeros(count, dtype=torch.long) for count in counts]
    assert denoising_queries(labels, [torch.zeros(count, 4) for count in counts], 6) is None


def test_positives_come_first_in_every_group_and_know_their_box() -> None:
    queries = queries_of([3, 1], num_denoising=6)  # two groups of three positives and three negatives
    assert queries.positives[0].tolist() == [0, 1, 2, 6, 7, 8]
    assert queries.assigned[0].tolist() == [0, 1, 2, 0, 1, 2]
    assert queries.positives[1].tolist() == [0, 6]
    assert queries.assigned[1].tolist() == [0, 0]


def test_positives_keep_the_label_of_their_box_unless_it_was_flipped() -> None:
    queries = queries_of([5], num_classes=1000)
    kept = queries.labels[0, queries.positives[0]] == queries.assigned[0]
    assert 0.6 < kept.float().mean() < 0.9


def test_corners_of_positives_move_by_up_to_half_a_side() -> None:
    queries = queries_of([4] * 50)
    shifts = corner_shifts(queries.boxes[:, ~is_negative(queries, 4)], BOX).abs()
    assert 0.98 < shifts.max() <= 1 + 1e-4
    assert shifts.min() < 0.02
    assert shifts.mean().item() == pytest.approx(0.5, abs=0.02)


def test_corners_of_negatives_move_by_half_to_a_whole_side() -> None:
    queries = queries_of([4] * 50)
    boxes = queries.boxes[:, is_negative(queries, 4)]
    # Both corners of a side moved inwards pass each other; such a side has no width and hides where they are.
    uncrossed = boxes[..., 2:] > 0
    shifts = corner_shifts(boxes, BOX).abs().unflatten(-1, (2, 2))
    shifts = shifts[uncrossed[..., None, :].expand_as(shifts)]
    assert 1.98 < shifts.max() <= 2 + 1e-4
    assert 1 - 1e-4 <= shifts.min() < 1.02
    assert shifts.mean().item() == pytest.approx(1.5, abs=0.02)


def test_a_quarter_of_the_negatives_sides_vanishes_as_its_corners_pass_each_other() -> None:
    queries = queries_of([4] * 50)
    vanished = queries.boxes[:, is_negative(queries, 4), 2:] == 0
    assert vanished.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_corners_move_either_way_independently_of_each_other() -> None:
    queries = queries_of([4] * 50)
    signs = corner_shifts(queries.boxes[:, ~is_negative(queries, 4)], BOX) > 0
    combinations = (signs.reshape(-1, 4).long() * torch.tensor([1, 2, 4, 8])).sum(dim=1).bincount(minlength=16)
    assert (combinations / combinations.sum()).tolist() == pytest.approx([1 / 16] * 16, abs=0.015)


def test_noisy_corners_stay_inside_the_image() -> None:
    torch.manual_seed(0)
    boxes = [torch.tensor([[0.05, 0.95, 0.1, 0.1], [0.5, 0.5, 1.0, 1.0]])]
    queries = denoising_queries([torch.tensor([0, 1])], boxes, 6)
    assert queries is not None
    low, high = (queries.boxes[..., :2] + sign * queries.boxes[..., 2:] / 2 for sign in (-1, 1))
    # A side whose corners passed each other keeps their middle.
    assert low.min() >= -1e-6
    assert high.max() <= 1 + 1e-6


@pytest.mark.parametrize("negative", [False, True])
def test_a_quarter_of_the_labels_is_replaced_by_a_random_one(negative: bool) -> None:
    torch.manual_seed(0)
    labels = [torch.full((5,), 2)] * 400
    queries = denoising_queries(labels, [torch.tensor(BOX).repeat(5, 1)] * 400, 4)
    assert queries is not None
    drawn = queries.labels[:, is_negative(queries, 5) == negative]
    # A random label is the true one in one of four cases.
    share = drawn.flatten().bincount(minlength=4) / drawn.numel()
    assert share.tolist() == pytest.approx([0.25 / 4, 0.25 / 4, 0.75 + 0.25 / 4, 0.25 / 4], abs=0.005)


def test_places_without_a_box_keep_the_label_of_padding_and_no_extent() -> None:
    queries = queries_of([4, 1], num_classes=6)
    place = torch.arange(4).repeat(2 * queries.num_groups)
    assert (queries.labels[1, place > 0] == 6).all()
    assert not queries.boxes[1, place > 0].any()
    assert (queries.labels[1, place == 0] < 6).all()
    assert (queries.labels[0] < 6).all()


def test_noise_differs_between_groups_and_images() -> None:
    queries = queries_of([1, 1])
    assert len(queries.boxes.reshape(-1, 4).unique(dim=0)) > 0.9 * queries.boxes.shape[1] * 2 * 0.75


@pytest.mark.parametrize(("largest", "groups", "queries"), [(1, 4, 3), (3, 2, 5), (2, 1, 1)])
def test_queries_see_what_contrastive_denoising_allows(largest: int, groups: int, queries: int) -> None:
    denoising = 2 * largest * groups
    mask = attention_mask(denoising, groups, queries, torch.device("cpu"))
    assert mask.shape == (denoising + queries, denoising + queries)
    group_of = [i // (2 * largest) for i in range(denoising)] + [None] * queries
    for i, looking in enumerate(group_of):
        for j, seen in enumerate(group_of):
            assert mask[i, j].item() == (seen is None or seen == looking), (i, j)

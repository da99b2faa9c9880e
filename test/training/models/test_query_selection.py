"""Query selection: anchors by hand, the best cells first, and the two orders of work agreeing."""

from __future__ import annotations

import math

import pytest
import torch
from random_weights import randomise_everything
from torch import Tensor

from training.models.query_selection import QuerySelection, anchor_logits, inverse_sigmoid

CHANNELS = 16


def selection_of(num_queries: int) -> QuerySelection:
    torch.manual_seed(0)
    module = QuerySelection(CHANNELS, 5, num_queries).double()
    randomise_everything(module)
    return module


def memory_of(sizes: list[tuple[int, int]], batch: int = 2) -> Tensor:
    return torch.randn(batch, sum(h * w for h, w in sizes), CHANNELS, dtype=torch.float64)


def logit(x: float) -> float:
    return math.log(x / (1 - x))


def anchors_by_hand(sizes: list[tuple[int, int]]) -> list[list[float] | None]:
    """Logits of cx, cy, w, h per cell, level by level and row by row; None where the anchor is not valid."""
    anchors: list[list[float] | None] = []
    for level, (height, width) in enumerate(sizes):
        for row in range(height):
            for column in range(width):
                box = [(column + 0.5) / width, (row + 0.5) / height, 0.05 * 2**level, 0.05 * 2**level]
                valid = all(0.01 < value < 0.99 for value in box)
                anchors.append([logit(value) for value in box] if valid else None)
    return anchors


SIZES = [(4, 60), (3, 5), (51, 2)]
"""60 columns and 51 rows put the outermost centres within 0.01 of the border."""


def test_anchors_are_those_of_every_cell() -> None:
    logits, valid = anchor_logits(SIZES, torch.zeros(0, dtype=torch.float64))
    expected = anchors_by_hand(SIZES)
    assert logits.shape == (1, len(expected), 4)
    assert valid.flatten().tolist() == [anchor is not None for anchor in expected]
    for found, anchor in zip(logits[0].tolist(), expected, strict=True):
        assert found == (pytest.approx(anchor) if anchor else [math.inf] * 4)


def test_anchors_at_the_border_of_a_wide_map_are_not_valid() -> None:
    _, valid = anchor_logits([(1, 60)], torch.zeros(0))
    assert valid.flatten().tolist() == [False, *[True] * 58, False]


@torch.no_grad()
def test_cells_without_a_valid_anchor_are_seen_as_zero() -> None:
    module = selection_of(480)
    memory = memory_of(SIZES)
    valid = torch.tensor([anchor is not None for anchor in anchors_by_hand(SIZES)])
    changed = torch.where(valid[:, None], memory, 100.0)
    assert torch.equal(module(memory, SIZES).logits, module(changed, SIZES).logits)


@torch.no_grad()
@pytest.mark.parametrize("dense_boxes", [False, True])
def test_the_cells_of_the_highest_scores_are_taken_best_first(dense_boxes: bool) -> None:
    sizes = [(4, 6), (2, 3), (1, 2)]
    module, memory = selection_of(7), memory_of([(4, 6), (2, 3), (1, 2)])
    module.dense_boxes = dense_boxes
    selected = module(memory, sizes)
    anchors = anchors_by_hand(sizes)
    for i in range(2):
        cells = [module.norm(module.output(cell)) for cell in memory[i]]
        ranked = sorted(range(len(cells)), key=lambda cell: -module.score(cells[cell]).max().item())
        for place, cell in enumerate(ranked[:7]):
            anchor = torch.tensor(anchors[cell], dtype=torch.float64)
            assert torch.allclose(selected.content[i, place], cells[cell])
            assert torch.allclose(selected.logits[i, place], module.score(cells[cell]))
            assert torch.allclose(selected.boxes[i, place], torch.sigmoid(module.box(cells[cell]) + anchor))


@torch.no_grad()
def test_boxes_of_all_cells_or_of_the_selected_ones_are_the_same_result() -> None:
    module, memory = selection_of(50), memory_of(SIZES)
    sparse = module(memory, SIZES)
    module.dense_boxes = True
    dense = module(memory, SIZES)
    assert torch.equal(sparse.content, dense.content)
    assert torch.equal(sparse.logits, dense.logits)
    assert torch.allclose(sparse.boxes, dense.boxes, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(("num_queries", "expected"), [(300, 8), (8, 8), (7, 7), (1, 1)])
def test_an_image_with_fewer_cells_than_queries_gives_all_of_them(num_queries: int, expected: int) -> None:
    sizes = [(2, 3), (1, 1), (1, 1)]
    selected = selection_of(num_queries)(memory_of(sizes), sizes)
    assert selected.content.shape == (2, expected, CHANNELS)
    assert selected.boxes.shape == (2, expected, 4)


def test_class_heads_start_at_a_probability_of_one_percent() -> None:
    module = QuerySelection(CHANNELS, 5, 7)
    assert torch.allclose(module.score.bias.sigmoid(), torch.full((5,), 0.01))
    assert module.score.bias[0].item() == pytest.approx(-math.log(99))


def test_boxes_start_at_the_anchors() -> None:
    torch.manual_seed(0)
    module = QuerySelection(CHANNELS, 5, 6)
    boxes = module(torch.randn(1, 6, CHANNELS), [(1, 4), (1, 1), (1, 1)]).boxes[0]
    expected = {(0.125, 0.05), (0.375, 0.05), (0.625, 0.05), (0.875, 0.05), (0.5, 0.1), (0.5, 0.2)}
    assert {(round(x, 4), round(w, 4)) for x, _, w, _ in boxes.tolist()} == expected


@pytest.mark.parametrize(("x", "expected"), [(0.5, 0.0), (0.75, math.log(3)), (0.01, -math.log(99))])
def test_inverse_sigmoid_is_the_logit(x: float, expected: float) -> None:
    assert inverse_sigmoid(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("x", "expected"), [(0.0, math.log(1e-5)), (-3.0, math.log(1e-5)), (1.0, -math.log(1e-5))])
def test_inverse_sigmoid_is_finite_at_the_ends(x: float, expected: float) -> None:
    assert inverse_sigmoid(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-4)

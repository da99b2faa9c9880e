"""Boxes, assignment and YOLO's loss against loops written for the purpose."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.losses.assigner import TaskAlignedAssigner
from training.losses.yolo import YoloLoss, distribution_focal_loss, points_in_boxes
from training.models.boxes import box_iou, complete_iou
from training.models.targets import Targets, pad_targets
from training.models.yolo_head import anchor_points


def ciou_by_hand(a: list[float], b: list[float]) -> float:
    ix = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    iy = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    intersection = ix * iy
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    iou = intersection / union
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    distance = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    angle = math.atan((a[2] - a[0]) / (a[3] - a[1])) - math.atan((b[2] - b[0]) / (b[3] - b[1]))
    v = 4 / math.pi**2 * angle**2
    weight = v / (1 - iou + v) if v else 0.0
    return iou - distance / diagonal - weight * v


coordinates = st.tuples(*[st.floats(0, 100), st.floats(0, 100), st.floats(1, 100), st.floats(1, 100)])


@given(coordinates, coordinates)
@settings(max_examples=100, deadline=None)
def test_complete_iou_equals_its_formula(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    a, b = ([x, y, x + w, y + h] for x, y, w, h in (first, second))
    value = complete_iou(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    assert value.item() == pytest.approx(ciou_by_hand(a, b), abs=1e-5)


def test_iou_of_apart_and_equal_boxes() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]])
    b = torch.tensor([[3.0, 3, 4, 4], [0, 0, 2, 2], [1, 0, 3, 2]])
    assert torch.allclose(box_iou(a, b), torch.tensor([0.0, 1.0, 1 / 3]))


def random_batch(seed: int, num_classes: int = 3) -> tuple[dict[str, Tensor], Targets]:
    """Outputs of a head on a 64x64 image (84 cells) and up to five objects an image, in float64."""
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([(8, 8), (4, 4), (2, 2)], torch.device("cpu"))
    points, strides = points.double(), strides.double()

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    bins = rand(2, 84, 4, 16) * 4
    offsets = (bins.softmax(-1) * torch.arange(16.0, dtype=torch.float64)).sum(-1) * strides[:, None]
    outputs = {
        "logits": rand(2, 84, num_classes) * 4 - 2,
        "distances": bins,
        "boxes": torch.cat([points - offsets[..., :2], points + offsets[..., 2:]], dim=2),
        "points": points,
        "strides": strides,
    }
    boxes, labels = [], []
    for count in (5, seed % 3):
        corner = rand(count, 2) * 40
        boxes.append(torch.cat([corner, corner + 4 + rand(count, 2) * 20], dim=1))
        labels.append((rand(count) * num_classes).long())
    return outputs, pad_targets(boxes, labels, [rand(1, 4) * 0, torch.tensor([[0.0, 0, 20, 20]]).double()])


def assign_by_hand(outputs: dict[str, Tensor], targets: Targets, image: int, topk: int) -> dict[int, tuple[int, float]]:
    """Cell -> (object, class target), one cell and one object at a time; cells of no weight are left out."""
    scores = outputs["logits"][image].sigmoid()
    claims: dict[int, list[tuple[float, int]]] = {}
    aligned: dict[tuple[int, int], tuple[float, float]] = {}
    for j, (box, label) in enumerate(zip(targets.boxes[image].tolist(), targets.labels[image].tolist(), strict=True)):
        if label < 0:
            continue
        candidates = []
        for i, (x, y) in enumerate(outputs["points"].tolist()):
            if box[0] < x < box[2] and box[1] < y < box[3]:
                iou = max(0.0, ciou_by_hand(outputs["boxes"][image, i].tolist(), box))
                aligned[j, i] = (scores[i, label].item() ** 0.5 * iou**6, iou)
                if iou > 0:
                    candidates.append((-aligned[j, i][0], i))
        for _, i in sorted(candidates)[:topk]:
            claims.setdefault(i, []).append((aligned[j, i][1], j))
    owners = {i: max(claim, key=lambda c: (c[0], -c[1]))[1] for i, claim in claims.items()}
    result = {}
    for i, j in owners.items():
        mine = [aligned[j, other] for other, owner in owners.items() if owner == j]
        best_alignment, best_iou = max(m[0] for m in mine), max(m[1] for m in mine)
        result[i] = (j, aligned[j, i][0] * best_iou / (best_alignment + 1e-9))
    return result


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("topk", [2, 10])
def test_assignment_equals_a_loop_over_cells_and_objects(seed: int, topk: int) -> None:
    outputs, targets = random_batch(seed)
    assignment = TaskAlignedAssigner(topk=topk).assign(
        outputs["logits"].sigmoid(), outputs["boxes"], outputs["points"], targets
    )
    for image in range(2):
        expected = assign_by_hand(outputs, targets, image, topk)
        assert assignment.scores[image].sum(dim=1).nonzero().flatten().tolist() == sorted(expected)
        for cell, (index, score) in expected.items():
            assert assignment.object_index[image, cell] == index
            label = targets.labels[image, index]
            assert assignment.scores[image, cell, label].item() == pytest.approx(score, abs=1e-5)
            assert assignment.scores[image, cell].sum().item() == pytest.approx(score, abs=1e-5)


def test_an_object_smaller_than_a_cell_gets_a_cell_only_with_min_side() -> None:
    outputs, _ = random_batch(0)
    targets = pad_targets([torch.tensor([[9.0, 9, 11, 11]])] * 2, [torch.tensor([1])] * 2, [torch.zeros(0, 4)] * 2)
    arguments = (outputs["logits"].sigmoid(), outputs["boxes"], outputs["points"], targets)
    assert not TaskAlignedAssigner().assign(*arguments).foreground.any()
    assert TaskAlignedAssigner(min_side=8.0).assign(*arguments).foreground.any(dim=1).all()


def test_distribution_focal_loss_equals_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    bins = torch.randn(7, 4, 16, generator=generator)
    distances = torch.rand(7, 4, generator=generator) * 14.9
    expected = []
    for p in range(7):
        sides = []
        for s in range(4):
            y, probability = distances[p, s].item(), bins[p, s].softmax(0)
            i = int(y)
            sides.append(-(i + 1 - y) * probability[i].log() - (y - i) * probability[i + 1].log())
        expected.append(sum(sides) / 4)
    assert torch.allclose(distribution_focal_loss(bins, distances), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_loss_equals_a_loop_over_cells(seed: int) -> None:
    outputs, targets = random_batch(seed)
    terms = YoloLoss()(outputs, targets)
    classes = box = dfl = normaliser = 0.0
    for image in range(2):
        assigned = assign_by_hand(outputs, targets, image, 10)
        for i, (x, y) in enumerate(outputs["points"].tolist()):
            target = torch.zeros(3, dtype=torch.float64)
            if i in assigned:
                index, score = assigned[i]
                target[targets.labels[image, index]] = score
                normaliser += score
                goal = targets.boxes[image, index].tolist()
                box += score * (1 - ciou_by_hand(outputs["boxes"][image, i].tolist(), goal))
                stride = outputs["strides"][i].item()
                sides = [x - goal[0], y - goal[1], goal[2] - x, goal[3] - y]
                distances = torch.tensor([[min(max(d / stride, 0), 14.99) for d in sides]], dtype=torch.float64)
                dfl += score * distribution_focal_loss(outputs["distances"][image, i][None], distances).item()
            elif any(a <= x < c and b <= y < d for a, b, c, d in targets.ignored[image].tolist()):
                continue
            probability = outputs["logits"][image, i].sigmoid()
            classes -= (target * probability.log() + (1 - target) * (1 - probability).log()).sum().item()
    normaliser = max(normaliser, 1.0)
    assert terms["class"].item() == pytest.approx(0.5 * classes / normaliser, rel=1e-5)
    assert terms["box"].item() == pytest.approx(7.5 * box / normaliser, rel=1e-5)
    assert terms["dfl"].item() == pytest.approx(1.5 * dfl / normaliser, rel=1e-5)


def test_a_batch_without_objects_has_only_a_class_loss() -> None:
    outputs, _ = random_batch(0)
    outputs["logits"].requires_grad_()
    empty = [torch.zeros(0, 4)] * 2
    terms = YoloLoss()(outputs, pad_targets(empty, [torch.zeros(0, dtype=torch.long)] * 2, empty))
    assert terms["class"] > 0
    assert terms["box"] == 0
    assert terms["dfl"] == 0
    sum(terms.values()).backward()


def test_points_in_boxes_counts_the_left_edge_and_not_the_right() -> None:
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0]])
    assert points_in_boxes(points, torch.tensor([[[4.0, 4.0, 12.0, 12.0]]])).tolist() == [[True, False]]
    assert points_in_boxes(points, torch.zeros(1, 0, 4)).tolist() == [[False, False]]

"""The distillation terms against loops that follow the equations, and what target alignment is for."""

from __future__ import annotations

import math

import pytest
import torch
from spaces import STAGES
from torch import Tensor

from training.losses.assigner import Assignment
from training.losses.distillation import (
    BERNOULLI,
    SPATIAL,
    YOLO_DISTILLATION,
    DistillationSettings,
    align,
    class_divergence,
    detr_terms,
    feature_distance,
    feature_terms,
    yolo_terms,
)
from training.losses.matcher import Match
from training.models.boxes import complete_iou, cxcywh_to_xyxy, generalized_iou

DETR = DistillationSettings()
CELLS = 40


def close(ours: Tensor, expected: float) -> None:
    assert ours.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def softmax(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def kl_by_hand(teacher: Tensor, student: Tensor, temperature: float) -> float:
    """Equation 7's summand for one row of logits."""
    p, q = softmax(teacher.tolist(), temperature), softmax(student.tolist(), temperature)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_softmax_divergence_follows_equation_7(temperature: float) -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(6, 5), torch.randn(6, 5)
    rows = class_divergence(teacher, student, temperature)
    for ours, t, s in zip(rows, teacher, student, strict=True):
        close(ours, kl_by_hand(t, s, temperature))


def test_bernoulli_divergence_adds_up_one_per_class() -> None:
    torch.manual_seed(1)
    teacher, student = torch.randn(4, 3), torch.randn(4, 3)
    rows = class_divergence(teacher, student, 2.0, BERNOULLI)
    for ours, t, s in zip(rows, teacher.tolist(), student.tolist(), strict=True):
        expected = 0.0
        for a, b in zip(t, s, strict=True):
            p, q = sigmoid(a / 2), sigmoid(b / 2)
            expected += 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
        close(ours, expected)


def test_pooled_feature_distance_is_two_less_twice_the_cosine() -> None:
    torch.manual_seed(2)
    teacher, student = torch.randn(3, 8, 4, 5), torch.randn(3, 8, 4, 5)
    cosines = [
        torch.nn.functional.cosine_similarity(t.mean(dim=(1, 2)), s.mean(dim=(1, 2)), dim=0).item()
        for t, s in zip(teacher, student, strict=True)
    ]
    close(feature_distance(teacher, student), sum(2 - 2 * cosine for cosine in cosines) / 3)


def test_spatial_feature_distance_averages_over_the_cells() -> None:
    torch.manual_seed(3)
    teacher, student = torch.randn(2, 8, 3, 4), torch.randn(2, 8, 3, 4)
    total = 0.0
    for image in range(2):
        for y in range(3):
            for x in range(4):
                t, s = teacher[image, :, y, x], student[image, :, y, x]
                total += (t / t.norm() - s / s.norm()).square().sum().item()
    close(feature_distance(teacher, student, SPATIAL), total / 24)


def by_part(features: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {
        "backbone": {stage: features[stage] for stage in STAGES[:4]},
        "neck": {stage: features[stage] for stage in STAGES[4:]},
    }


def test_feature_term_weighs_backbone_and_neck_and_sends_no_gradient_to_the_teacher() -> None:
    torch.manual_seed(4)
    teacher = {stage: torch.randn(2, 6, 3, 3, requires_grad=True) for stage in STAGES}
    student = {stage: torch.randn(2, 6, 3, 3, requires_grad=True) for stage in STAGES}
    settings = DistillationSettings(backbone_weight=0.5, encoder_weight=0.2)

    term = feature_terms(settings, by_part(teacher), by_part(student))["kd_feature"]
    term.backward()

    distances = [feature_distance(teacher[stage], student[stage]).item() for stage in STAGES]
    close(term, 0.5 * sum(distances[:4]) + 0.2 * sum(distances[4:]))
    assert all(value.grad is None for value in teacher.values())
    assert all(value.grad is not None for value in student.values())


def yolo_outputs(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    corners = torch.rand(2, CELLS, 2) * 50
    return {
        "logits": torch.randn(2, CELLS, 4, requires_grad=True),
        "distances": torch.randn(2, CELLS, 4, 16, requires_grad=True),
        "boxes": torch.cat([corners, corners + torch.rand(2, CELLS, 2) * 30 + 5], dim=2).requires_grad_(),
    }


def assignment(seed: int) -> Assignment:
    torch.manual_seed(seed)
    foreground = torch.rand(2, CELLS) < 0.6
    nothing = torch.zeros(2, CELLS, 4)
    return Assignment(foreground, torch.randint(2, (2, CELLS)) * foreground, nothing, nothing)


@pytest.mark.parametrize("aligned", [True, False])
def test_yolo_terms_follow_equations_7_8_10_and_11(aligned: bool) -> None:
    teacher, student, ours, theirs = yolo_outputs(0), yolo_outputs(1), assignment(2), assignment(3)
    settings = DistillationSettings(0.4, 2.0, iou_weight=1.2, edge_weight=0.8, align_targets=aligned)
    expected, count = {"kd_class": 0.0, "kd_box": 0.0, "kd_edge": 0.0}, 0
    for image in range(2):
        for cell in range(CELLS):
            if not theirs.foreground[image, cell]:
                continue
            agree = ours.foreground[image, cell] and (
                theirs.object_index[image, cell] == ours.object_index[image, cell]
            )
            if aligned and not agree:
                continue
            count += 1
            t, s = ({k: v[image, cell] for k, v in side.items()} for side in (teacher, student))
            expected["kd_class"] += 0.4 * kl_by_hand(t["logits"], s["logits"], 2.0)
            expected["kd_box"] += 1.2 * (1 - complete_iou(s["boxes"], t["boxes"]).item())
            for side in range(4):
                expected["kd_edge"] += 0.8 * kl_by_hand(t["distances"][side], s["distances"][side], 1.0) / 4

    terms = yolo_terms(settings, teacher, student, theirs, ours)

    assert count > 3
    for name, value in expected.items():
        close(terms[name], value / count)


def detr_outputs(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        "logits": torch.randn(2, 9, 4, requires_grad=True),
        "boxes_cxcywh": (torch.rand(2, 9, 4) * 0.4 + 0.1).requires_grad_(),
    }


def test_detr_terms_compare_queries_of_the_same_object() -> None:
    teacher, student = detr_outputs(0), detr_outputs(1)
    theirs = [Match(torch.tensor([5, 2, 7]), torch.tensor([0, 1, 2])), Match(torch.tensor([3]), torch.tensor([0]))]
    ours = [Match(torch.tensor([1, 5, 0]), torch.tensor([0, 1, 2])), Match(torch.tensor([8]), torch.tensor([0]))]
    pairs = [(0, 5, 1), (0, 2, 5), (0, 7, 0), (1, 3, 8)]
    expected = {"kd_class": 0.0, "kd_box": 0.0, "kd_edge": 0.0}
    for image, t, s in pairs:
        expected["kd_class"] += 3.75 * kl_by_hand(teacher["logits"][image, t], student["logits"][image, s], 1.0)
        boxes = teacher["boxes_cxcywh"][image, t], student["boxes_cxcywh"][image, s]
        expected["kd_edge"] += 5 * (boxes[0] - boxes[1]).abs().sum().item()
        expected["kd_box"] += 2 * (1 - generalized_iou(*(cxcywh_to_xyxy(box) for box in boxes)).item())

    terms = detr_terms(DETR, teacher, student, theirs, ours)

    for name, value in expected.items():
        close(terms[name], value / 4)


def test_without_alignment_a_query_is_drawn_to_another_object_and_with_it_is_not() -> None:
    """Both networks predict every object exactly, at swapped positions: there is nothing to distil."""
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.3, 0.2]])
    logits = torch.tensor([[4.0, -4.0], [-4.0, 4.0]])
    teacher = {"logits": logits[None], "boxes_cxcywh": boxes[None]}
    student = {
        "logits": logits.flip(0)[None].clone().requires_grad_(),
        "boxes_cxcywh": boxes.flip(0)[None].clone().requires_grad_(),
    }
    theirs = [Match(torch.tensor([0, 1]), torch.tensor([0, 1]))]
    ours = [Match(torch.tensor([1, 0]), torch.tensor([0, 1]))]

    aligned = detr_terms(DETR, teacher, student, theirs, ours)
    naive = detr_terms(DistillationSettings(align_targets=False), teacher, student, theirs, ours)

    for name in ("kd_class", "kd_box", "kd_edge"):
        assert aligned[name].item() == pytest.approx(0.0, abs=1e-5)
        assert naive[name].item() > 1.0


def test_objects_that_only_one_network_matched_are_not_distilled() -> None:
    theirs = Match(torch.tensor([4, 6, 1]), torch.tensor([0, 2, 3]))
    ours = Match(torch.tensor([9, 8, 7]), torch.tensor([1, 2, 3]))
    teacher_queries, student_queries = align(theirs, ours)
    assert teacher_queries.tolist() == [6, 1]
    assert student_queries.tolist() == [8, 7]


def test_no_gradient_reaches_the_teachers_predictions() -> None:
    teacher, student = yolo_outputs(0), yolo_outputs(1)
    terms = yolo_terms(YOLO_DISTILLATION, teacher, student, assignment(2), assignment(2))
    torch.stack(list(terms.values())).sum().backward()
    assert all(value.grad is None for value in teacher.values())
    assert all(value.grad is not None for value in student.values())


def test_nothing_to_distil_gives_zero_and_a_gradient_all_the_same() -> None:
    teacher, student = yolo_outputs(0), yolo_outputs(1)
    none = assignment(2)
    none = Assignment(torch.zeros_like(none.foreground), none.object_index, none.boxes, none.scores)
    total = torch.stack(list(yolo_terms(YOLO_DISTILLATION, teacher, student, none, none).values())).sum()
    total.backward()
    assert total.item() == 0.0
    assert student["logits"].grad is not None


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    settings = DistillationSettings(class_weight=0.0, backbone_weight=0.0, encoder_weight=0.0)
    terms = yolo_terms(settings, yolo_outputs(0), yolo_outputs(1), assignment(2), assignment(2))
    assert set(terms) == {"kd_box", "kd_edge"}
    assert feature_terms(settings, {}, {}) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_divergence": "kl"}, "class_divergence is 'kl'"),
        ({"feature_alignment": "gap"}, "feature_alignment is 'gap'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationSettings(**values)

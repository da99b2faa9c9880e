"""Self-distillation: terms that draw the base-net towards the super-net (AnyDepth, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.assigner import Assignment
from training.losses.matcher import Match
from training.losses.normaliser import shared_normaliser
from training.models.boxes import complete_iou, cxcywh_to_xyxy, generalized_iou

SOFTMAX, BERNOULLI = "softmax", "bernoulli"
POOLED, SPATIAL = "pooled", "spatial"


StageFeatures = Mapping[str, Mapping[str, Tensor]]
"""The outputs [B, C, H, W] of all stages by name, those of the `backbone` and those of the `neck`."""


@dataclass(frozen=True)
class DistillationSettings:
    """Weights and choices of the distillation terms. The defaults are the paper's for DETR (Table 5).

    Attributes:
        class_weight: w_cls of equation 7; 0 leaves the term out.
        temperature: tau of equation 7.
        class_divergence: `softmax`, over the classes, as the paper; `bernoulli`, each class by itself.
        iou_weight: lambda_iou of equation 8, of GIoU (DETR) or CIoU (YOLO).
        edge_weight: lambda_edge of equation 8, of L1 (DETR) or the divergence of the edge distributions (YOLO).
        edge_temperature: of those distributions.
        backbone_weight: w_l of equation 9 at the stages of the backbone.
        encoder_weight: w_l of equation 9 at the stages of the neck.
        feature_alignment: `pooled` (equation 9) or `spatial` (equation 12).
        align_targets: distil only where both networks answer to the same object: target-aligned query matching
            (DETR), conflicting-assignment removal (YOLO). False is the naive variant of Table 3.
    """

    class_weight: float = 3.75
    temperature: float = 1.0
    class_divergence: str = SOFTMAX
    iou_weight: float = 2.0
    edge_weight: float = 5.0
    edge_temperature: float = 1.0
    backbone_weight: float = 0.5
    encoder_weight: float = 0.2
    feature_alignment: str = POOLED
    align_targets: bool = True

    def __post_init__(self) -> None:
        if self.class_divergence not in (SOFTMAX, BERNOULLI):
            raise ValueError(f"class_divergence is {self.class_divergence!r}; it must be {SOFTMAX} or {BERNOULLI}")
        if self.feature_alignment not in (POOLED, SPATIAL):
            raise ValueError(f"feature_alignment is {self.feature_alignment!r}; it must be {POOLED} or {SPATIAL}")
        for name in ("temperature", "edge_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")

    @property
    def predictions(self) -> bool:
        """Whether any term on predictions is on."""
        return any((self.class_weight, self.iou_weight, self.edge_weight))

    @property
    def features(self) -> bool:
        """Whether any term on features is on."""
        return any((self.backbone_weight, self.encoder_weight))


YOLO_DISTILLATION = DistillationSettings(
    class_weight=0.4,
    temperature=2.0,
    iou_weight=1.2,
    edge_weight=0.8,
    backbone_weight=0.4,
    encoder_weight=0.4,
)
"""The paper's weights for YOLO (Table 5)."""


def class_divergence(teacher: Tensor, student: Tensor, temperature: float, kind: str = SOFTMAX) -> Tensor:
    """tau^2 KL(teacher || student) per row [P], of logits [P, C]; the summand of equation 7.

    `softmax` compares one distribution over the classes, `bernoulli` adds up one for each class.
    """
    teacher, student = teacher / temperature, student / temperature
    if kind == SOFTMAX:
        log_student, log_teacher = student.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
        divergence = log_teacher.exp() * (log_teacher - log_student)
    else:
        probability = teacher.sigmoid()
        divergence = probability * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - probability) * (
            F.logsigmoid(-teacher) - F.logsigmoid(-student)
        )
    return temperature**2 * divergence.sum(dim=-1)


def feature_distance(teacher: Tensor, student: Tensor, kind: str = POOLED) -> Tensor:
    """Squared distance of the directions of two maps [B, C, H, W], a scalar in [0, 4], the mean over the batch.

    `pooled` compares one descriptor per image, the mean over its cells (equation 9); `spatial` compares every cell
    and takes the mean (equation 12).
    """
    if kind == POOLED:
        teacher, student = teacher.mean(dim=(2, 3)), student.mean(dim=(2, 3))
    difference = F.normalize(student, dim=1) - F.normalize(teacher, dim=1)
    return difference.square().sum(dim=1).mean()


def feature_terms(
    settings: DistillationSettings, teacher: StageFeatures, student: StageFeatures
) -> dict[str, Tensor]:
    """The weighted sum of `feature_distance` over the stages, as `kd_feature`; nothing where it is off."""
    if not settings.features:
        return {}
    weights = {"backbone": settings.backbone_weight, "neck": settings.encoder_weight}
    total = torch.stack(
        [
            weights[part] * feature_distance(map_.detach(), student[part][stage], settings.feature_alignment)
            for part, maps in teacher.items()
            for stage, map_ in maps.items()
        ]
    ).sum()
    return {"kd_feature": total}


def yolo_terms(
    settings: DistillationSettings,
    teacher: Mapping[str, Tensor],
    student: Mapping[str, Tensor],
    teacher_assignment: Assignment,
    student_assignment: Assignment,
) -> dict[str, Tensor]:
    """Prediction terms of YOLO, `kd_class`, `kd_box` and `kd_edge`, over cells both networks hold responsible.

    With `align_targets` these are the cells V that agree on the object (equations 10 and 11), else all that are
    the super-net's foreground.

    Args:
        settings: weights and choices.
        teacher: what `YoloHead` returned in the super-net's pass.
        student: the same in the base-net's.
        teacher_assignment: of the super-net's cells.
        student_assignment: of the base-net's.
    """
    chosen = teacher_assignment.foreground
    if settings.align_targets:
        same = teacher_assignment.object_index == student_assignment.object_index
        chosen = chosen & student_assignment.foreground & same
    count = shared_normaliser(chosen.sum())

    def rows(outputs: Mapping[str, Tensor], name: str) -> Tensor:
        return outputs[name][chosen]

    terms = {
        "kd_class": _class_term(settings, rows(teacher, "logits").detach(), rows(student, "logits"), count),
        "kd_box": settings.iou_weight
        * (1 - complete_iou(rows(student, "boxes"), rows(teacher, "boxes").detach())).sum()
        / count,
        "kd_edge": settings.edge_weight
        * class_divergence(
            rows(teacher, "distances").detach(), rows(student, "distances"), settings.edge_temperature
        ).sum()
        / (4 * count),
    }
    return _switched_on(settings, terms)


def detr_terms(
    settings: DistillationSettings,
    teacher: Mapping[str, Tensor],
    student: Mapping[str, Tensor],
    teacher_matches: Sequence[Match],
    student_matches: Sequence[Match],
) -> dict[str, Tensor]:
    """Prediction terms of DETR, `kd_class`, `kd_box` and `kd_edge`, over matched queries.

    With `align_targets` each query of the base-net is paired with the super-net's query of the same object; without,
    with the super-net's query at the same position, whichever object that one stands for.

    Args:
        settings: weights and choices.
        teacher: `logits` [B, Q, C] and `boxes_cxcywh` [B, Q, 4] of the super-net.
        student: the same of the base-net.
        teacher_matches: of each image, of the super-net's queries.
        student_matches: of the base-net's.
    """
    pairs = [
        (image, *(align(theirs, ours) if settings.align_targets else (ours.queries, ours.queries)))
        for image, (theirs, ours) in enumerate(zip(teacher_matches, student_matches, strict=True))
    ]
    images = torch.cat([torch.full_like(queries, image) for image, queries, _ in pairs])
    teacher_queries = torch.cat([queries for _, queries, _ in pairs])
    student_queries = torch.cat([queries for _, _, queries in pairs])
    count = shared_normaliser(torch.as_tensor(len(images), device=student["logits"].device))

    def rows(outputs: Mapping[str, Tensor], name: str, queries: Tensor) -> Tensor:
        return outputs[name][images, queries]

    teacher_boxes = rows(teacher, "boxes_cxcywh", teacher_queries).detach()
    student_boxes = rows(student, "boxes_cxcywh", student_queries)
    overlap = generalized_iou(cxcywh_to_xyxy(student_boxes), cxcywh_to_xyxy(teacher_boxes))
    terms = {
        "kd_class": _class_term(
            settings,
            rows(teacher, "logits", teacher_queries).detach(),
            rows(student, "logits", student_queries),
            count,
        ),
        "kd_box": settings.iou_weight * (1 - overlap).sum() / count,
        "kd_edge": settings.edge_weight * (student_boxes - teacher_boxes).abs().sum() / count,
    }
    return _switched_on(settings, terms)


def align(teacher: Match, student: Match) -> tuple[Tensor, Tensor]:
    """Queries of two matchings of one image, paired by object, [n] each; objects that only one has are left out."""
    common = torch.isin(student.objects, teacher.objects)
    objects = student.objects[common]
    order = torch.argsort(teacher.objects)
    position = torch.searchsorted(teacher.objects[order], objects)
    return teacher.queries[order][position], student.queries[common]


def _class_term(settings: DistillationSettings, teacher: Tensor, student: Tensor, count: Tensor) -> Tensor:
    divergence = class_divergence(teacher, student, settings.temperature, settings.class_divergence)
    return settings.class_weight * divergence.sum() / count


def _switched_on(settings: DistillationSettings, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {"kd_class": settings.class_weight, "kd_box": settings.iou_weight, "kd_edge": settings.edge_weight}
    return {name: term for name, term in terms.items() if weights[name]}

"""What a training step minimises: the detection loss of each pass and the distillation between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from training.losses.assigner import TaskAlignedAssigner
from training.losses.detr import DetrLoss
from training.losses.distillation import DistillationSettings, detr_terms, feature_terms, yolo_terms
from training.losses.settings import LossSettings
from training.losses.yolo import YoloLoss
from training.models.targets import Targets

Terms = dict[str, Tensor]
"""Weighted scalars by name; their sum is the loss."""


@dataclass(frozen=True)
class Pass:
    """One forward pass over a batch, and what its predictions were assigned to.

    Attributes:
        outputs: what the detector returned while training.
        assignment: `Assignment` of YOLO's cells, or a `Match` per image of DETR's queries; None if nobody asked.
    """

    outputs: Mapping[str, Any]
    assignment: Any = None


class Objective(Protocol):
    """The losses of one detector family."""

    def detection(self, outputs: Mapping[str, Any], targets: Targets, image_size: Sequence[int]) -> tuple[Terms, Pass]:
        """The loss of a pass on the labels, for images of `image_size` (height, width), and the pass assigned."""
        ...

    def assign(self, outputs: Mapping[str, Any], targets: Targets, image_size: Sequence[int]) -> Pass:
        """The pass assigned, without its loss."""
        ...

    def distillation(self, settings: DistillationSettings, teacher: Pass, student: Pass) -> Terms:
        """What draws `student` to `teacher`; no gradient reaches the teacher."""
        ...


@dataclass(frozen=True)
class YoloObjective:
    """YOLO's losses; see `Objective`."""

    loss: YoloLoss = field(default_factory=YoloLoss)

    def detection(self, outputs: Mapping[str, Any], targets: Targets, image_size: Sequence[int]) -> tuple[Terms, Pass]:
        """Class, box and distribution terms on task-aligned targets."""
        assigned = self.assign(outputs, targets, image_size)
        return self.loss.terms(outputs, targets, assigned.assignment), assigned

    def assign(self, outputs: Mapping[str, Any], targets: Targets, image_size: Sequence[int]) -> Pass:
        """Task-aligned assignment of the cells."""
        return Pass(outputs, self.loss.assign(outputs, targets))

    def distillation(self, settings: DistillationSettings, teacher: Pass, student: Pass) -> Terms:
        """Prediction terms over the cells that agree, and feature terms."""
        terms = feature_terms(settings, teacher.outputs["features"], student.outputs["features"])
        if settings.predictions:
            terms |= yolo_terms(settings, teacher.outputs, student.outputs, teacher.assignment, student.assignment)
        return terms


@dataclass(frozen=True)
class DetrObjective:
    """DETR's losses; see `Objective`."""

    loss: DetrLoss = field(default_factory=DetrLoss)

    def detection(self, outputs: Mapping[str, Any], targets: Targets, image_size: Sequence[int]) -> tuple[Terms, Pass]:
        """Varifocal, L1 and GIoU terms of all layers, of query selection and of the denoising queries."""
        terms, matches = self.loss(outputs, targets, image_size)
        return terms, Pass(outputs, matches)

    def assign(self, outputs: Mapping[str, Any], targets: Targets, image_size: Sequence[int]) -> Pass:
        """Hungarian matching of the last layer's queries."""
        return Pass(outputs, self.loss.match(outputs, targets, image_size))

    def distillation(self, settings: DistillationSettings, teacher: Pass, student: Pass) -> Terms:
        """Prediction terms over the queries of the same object, and feature terms."""
        terms = feature_terms(settings, teacher.outputs["features"], student.outputs["features"])
        if settings.predictions:
            terms |= detr_terms(settings, teacher.outputs, student.outputs, teacher.assignment, student.assignment)
        return terms


def yolo_objective(settings: LossSettings) -> Objective:
    """YOLO's losses, weighted by the settings."""
    return YoloObjective(
        YoloLoss(
            box_weight=settings.box_weight,
            class_weight=settings.class_weight,
            dfl_weight=settings.dfl_weight,
            assigner=TaskAlignedAssigner(topk=settings.topk, min_side=settings.min_side),
        )
    )


def detr_objective(settings: LossSettings) -> Objective:
    """DETR's losses, weighted by the settings."""
    return DetrObjective(
        DetrLoss(
            class_weight=settings.varifocal_weight,
            l1_weight=settings.l1_weight,
            giou_weight=settings.giou_weight,
        )
    )

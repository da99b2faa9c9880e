"""The families of detectors: one record each, of all that the rest of the training half asks a family.

A new family is a record here and files of its own beside its model; nothing else names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from training.losses.distillation import YOLO_DISTILLATION, DistillationSettings
from training.losses.objective import Objective, detr_objective, yolo_objective
from training.losses.settings import LossSettings
from training.models import detr_convert, detr_counts, detr_layouts, yolo_convert, yolo_counts
from training.models.conversion import Conversion
from training.models.counts import Part
from training.models.detector import AnyDepthDetector
from training.models.detr import SIZES as DETR_SIZES
from training.models.detr import AnyDepthDetr
from training.models.detr_segments import detr_segments
from training.models.fine import FineSettings
from training.models.segments import SegmentModule
from training.models.stage import ANY_DEPTH, AnyDepthSettings
from training.models.yolo import AnyDepthYolo
from training.models.yolo_blocks import SIZES as YOLO_SIZES
from training.models.yolo_segments import yolo_segments

Detector = TypeVar("Detector", bound=AnyDepthDetector)
Built = TypeVar("Built", bound=AnyDepthDetector, covariant=True)


class Builder(Protocol[Built]):
    """Makes a detector of one size of a family, with random weights."""

    def __call__(
        self, size: str, num_classes: int, *, fine: FineSettings | None, any_depth: AnyDepthSettings
    ) -> Built:
        """See `build_model` for the arguments; `size` is the name of the model without the family's."""
        ...


@dataclass(frozen=True)
class OutputSettings:
    """What has to be done before and behind a network of a family.

    Attributes:
        resize: how images are fitted to the input of its published weights: `letterbox` or `stretch`.
        nms: whether its rows hold doubles, which non-maximum suppression has to remove.
        iou_threshold: of that suppression, in (0, 1].
        multi_label: whether a row is reported once for each of its classes, not for the best alone; COCO's
            evaluation always does.
        ordered: whether rows come in one order always, as cells do; queries are chosen by their score.
    """

    resize: str
    nms: bool
    iou_threshold: float
    multi_label: bool
    ordered: bool


@dataclass(frozen=True)
class Counting(Generic[Detector]):
    """How parameters and operations of a family are counted.

    Attributes:
        convention: what the published figures count, in words.
        attention: whether they count attention's products.
        count_outputs: the parts behind the feature maps, given these by name on the meta device.
    """

    convention: str
    attention: bool
    count_outputs: Callable[[Detector, Mapping[str, Tensor]], list[Part]]


@dataclass(frozen=True)
class PublishedLayout(Generic[Detector]):
    """A layout that weights of a family are published in.

    Attributes:
        name: whose it is, for messages.
        marks: beginnings of keys that no other layout has.
        convert: the state for a detector from a checkpoint's tensors; refuses others by a `ValueError`.
    """

    name: str
    marks: tuple[str, ...]
    convert: Callable[[Mapping[str, Tensor], Detector], Conversion]


@dataclass(frozen=True)
class HuggingFaceExport(Generic[Detector]):
    """How a family is written for Hugging Face's transformers.

    Attributes:
        convert: the state that transformers reads.
        config: the content of `config.json`, of a size and class names.
    """

    convert: Callable[[Detector], Conversion]
    config: Callable[[str, Sequence[str]], dict[str, Any]]


@dataclass(frozen=True)
class Family(Generic[Detector]):
    """One family of detectors.

    Attributes:
        name: as in a manifest, and before the size in the name of a model, `NAME-SIZE`.
        sizes: names of its sizes.
        build: makes a detector.
        objective: its losses, with the weights of a recipe.
        segments: a detector cut for a bundle, in execution order, for images of (height, width).
        outputs: what has to be done before and behind its networks.
        counting: how it is counted.
        distillation: the paper's settings for it.
        layouts: what published weights it can be converted from.
        huggingface: how it is written for transformers; None where that has no place for it.
    """

    name: str
    sizes: tuple[str, ...]
    build: Builder[Detector]
    objective: Callable[[LossSettings], Objective]
    segments: Callable[[Detector, tuple[int, int]], Iterator[SegmentModule]]
    outputs: OutputSettings
    counting: Counting[Detector]
    distillation: DistillationSettings
    layouts: tuple[PublishedLayout[Detector], ...] = ()
    huggingface: HuggingFaceExport[Detector] | None = None

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of its models, as recipes give them."""
        return tuple(f"{self.name}-{size}" for size in self.sizes)


NMS_IOU_THRESHOLD = 0.6
"""Chosen on the validation split: the AP of 0.7, more AP50, and fewer doubles for those who look at the boxes."""

DETR = Family(
    name="detr",
    sizes=tuple(DETR_SIZES),
    build=AnyDepthDetr,
    objective=detr_objective,
    segments=detr_segments,
    outputs=OutputSettings("stretch", nms=False, iou_threshold=NMS_IOU_THRESHOLD, multi_label=True, ordered=False),
    counting=Counting(detr_counts.CONVENTION, attention=True, count_outputs=detr_counts.count_decoder),
    distillation=DistillationSettings(),
    layouts=(
        PublishedLayout(detr_layouts.ORIGINAL.name, (detr_layouts.ORIGINAL.mark,), detr_convert.from_original),
        PublishedLayout(detr_layouts.HUGGINGFACE.name, (detr_layouts.HUGGINGFACE.mark,), detr_convert.from_huggingface),
    ),
    huggingface=HuggingFaceExport(detr_convert.to_huggingface, detr_convert.huggingface_config),
)

YOLO = Family(
    name="yolo",
    sizes=tuple(YOLO_SIZES),
    build=AnyDepthYolo,
    objective=yolo_objective,
    segments=yolo_segments,
    outputs=OutputSettings("letterbox", nms=True, iou_threshold=NMS_IOU_THRESHOLD, multi_label=False, ordered=True),
    counting=Counting(yolo_counts.CONVENTION, attention=False, count_outputs=yolo_counts.count_head),
    distillation=YOLO_DISTILLATION,
    layouts=(PublishedLayout(yolo_convert.NAME, yolo_convert.MARKS, yolo_convert.from_original),),
)

FAMILIES: tuple[Family[Any], ...] = (DETR, YOLO)
"""All families. Read when a model is asked for, so that a test may put another one here."""


def model_names() -> tuple[str, ...]:
    """Names of all models, as recipes give them."""
    return tuple(name for family in FAMILIES for name in family.model_names)


def family_of(model_name: str) -> Family[Any]:
    """The family of a model like `detr-r50`.

    Raises:
        ValueError: an unknown name.
    """
    for family in FAMILIES:
        if model_name in family.model_names:
            return family
    raise ValueError(f"unknown model {model_name!r}; accepted are {', '.join(model_names())}")


def build_model(
    name: str,
    num_classes: int,
    *,
    fine: FineSettings | None = FineSettings(),
    any_depth: AnyDepthSettings = ANY_DEPTH,
) -> AnyDepthDetector:
    """Builds the detector of a name like `yolo-t` or `detr-r50`, with random weights.

    Args:
        name: one of `model_names()`.
        num_classes: classes of the head.
        fine: settings of FINE in the neck; None leaves it out.
        any_depth: which parts of the any-depth design it has; `STATIC` is the plain baseline.

    Raises:
        ValueError: an unknown name.
    """
    family = family_of(name)
    return family.build(name.removeprefix(f"{family.name}-"), num_classes, fine=fine, any_depth=any_depth)


def segment_modules(model: AnyDepthDetector, image_size: tuple[int, int]) -> Iterator[SegmentModule]:
    """Every segment of a detector in execution order, for images of `image_size` (height, width)."""
    return family_of(model.name).segments(model, image_size)

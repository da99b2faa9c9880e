"""What is counted of AnyDepth-YOLO behind its feature maps: the head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from anydepth_perception.depth.space import ONLY, Step
from training.models.counts import Part, count, count_params
from training.models.yolo import HEAD_INPUTS, AnyDepthYolo

CONVENTION = (
    "2 x MAC of convolutions and linear layers; attention products are left out, as in YOLOv12's published figures"
)


def count_head(model: AnyDepthYolo, maps: Mapping[str, Tensor]) -> list[Part]:
    """The head, on feature maps of the meta device."""
    _, flops = count(lambda: model.head([maps[name] for name in HEAD_INPUTS]))
    return [Part("head", count_params(model.head), {Step("head", ONLY): flops})]

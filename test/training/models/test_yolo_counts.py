"""AnyDepth-YOLO's parameters and FLOPs against the published figures; built without memory or computation."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from anydepth_perception.depth.space import DepthConfig
from training.families import build_model
from training.models.detector import AnyDepthDetector
from training.models.stage import AnyDepthSettings


def build(name: str, *, any_depth: bool) -> AnyDepthDetector:
    """The network for 80 classes without FINE, on the device that has shapes but no data."""
    with torch.device("meta"):
        return build_model(name, 80, fine=None, any_depth=AnyDepthSettings(any_depth)).eval()


def count_parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution_gflops(network: AnyDepthDetector, config: DepthConfig) -> float:
    """2 x multiply-adds of the convolutions at 640x640, as the published figures count: no norms, no attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, 640, 640, device="meta"), config)
    return counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / 1e9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yolo-n", 2_553_904),
        ("yolo-s", 9_127_424),
        ("yolo-m", 19_670_784),
        ("yolo-l", 26_506_496),
        ("yolo-x", 59_414_176),
    ],
)
def test_static_networks_have_the_published_number_of_parameters(name: str, expected: int) -> None:
    assert count_parameters(build(name, any_depth=False)) == expected


@pytest.mark.parametrize(("name", "millions"), [("yolo-l", 27.3), ("yolo-x", 61.3)])
def test_any_depth_networks_have_the_papers_number_of_parameters(name: str, millions: float) -> None:
    assert count_parameters(build(name, any_depth=True)) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(("name", "expected"), [("yolo-l", 788_480), ("yolo-x", 1_772_544)])
def test_dedicated_aggregators_have_the_papers_number_of_parameters(name: str, expected: int) -> None:
    aggregators = [stage.stage.aggregator.essential for stage in build(name, any_depth=True).stages.values()]
    assert sum(count_parameters(aggregator) for aggregator in aggregators if aggregator is not None) == expected


@pytest.mark.parametrize(
    ("name", "gflops"),
    [("yolo-n", 6.0), ("yolo-s", 19.4), ("yolo-m", 59.8), ("yolo-l", 82.4), ("yolo-x", 184.6)],
)
def test_static_networks_have_the_published_gflops(name: str, gflops: float) -> None:
    network = build(name, any_depth=False)
    assert convolution_gflops(network, network.space.full) == pytest.approx(gflops, rel=0.01)


@pytest.mark.parametrize(("name", "gflops"), [("yolo-l", 23.7), ("yolo-x", 53.0)])
def test_base_net_saves_the_papers_gflops(name: str, gflops: float) -> None:
    network = build(name, any_depth=True)
    full, base = (convolution_gflops(network, config) for config in (network.space.full, network.space.base))
    assert full - base == pytest.approx(gflops, rel=0.03)


@pytest.mark.parametrize("name", ["yolo-l", "yolo-x"])
def test_any_depth_adds_no_gflops_to_the_full_network(name: str) -> None:
    static, any_depth = build(name, any_depth=False), build(name, any_depth=True)
    full = static.space.full
    assert convolution_gflops(any_depth, full) == convolution_gflops(static, full)

"""AnyDepth-YOLO: published sizes, interchangeable paths, the static baseline, and where gradients go."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anydepth_perception.depth.config import ESSENTIAL, FULL, STAGES, DepthConfig
from training.models.batchnorm import SwitchableBatchNorm2d
from training.models.build import build_model
from training.models.stage import num_essential_blocks
from training.models.yolo import STAGE_INPUTS, AnyDepthYolo


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random batch-norm statistics and FINE weights, so that nothing agrees merely by its initial value."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.running_mean, -0.1, 0.1)
            uniform(module.running_var, 0.5, 1.5)
            uniform(module.weight, 0.8, 1.2)
            uniform(module.bias, -0.1, 0.1)
    for name, parameter in model.named_parameters():
        if ".fine." in name:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.fixture(scope="module")
def model() -> AnyDepthYolo:
    torch.manual_seed(0)
    network = build_model("yolo-t", 6).eval()
    randomise(network)
    return network


@pytest.mark.parametrize(
    ("name", "expected"),
    [("yolo-n", 2_553_904), ("yolo-s", 9_127_424), ("yolo-m", 19_670_784), ("yolo-l", 26_506_496)],
)
def test_static_networks_have_the_published_number_of_parameters(name: str, expected: int) -> None:
    network = build_model(name, 80, fine=None, any_depth=False)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_any_depth_yolo_l_adds_the_published_aggregators() -> None:
    aggregators = [
        stage.stage.aggregator.essential.conv.weight.numel() + 2 * stage.stage.aggregator.essential.norm.num_features
        for stage in build_model("yolo-l", 80, fine=None).stages.values()
        if stage.stage.aggregator.essential is not None
    ]
    assert sum(aggregators) == 788_480


def test_every_stage_of_size_t_has_something_to_skip(model: AnyDepthYolo) -> None:
    assert all(stage.stage.skippable for stage in model.stages.values())


def test_essential_path_runs_half_of_the_blocks_rounded_up() -> None:
    assert [num_essential_blocks(n) for n in (1, 2, 3, 4, 6, 23)] == [1, 1, 2, 2, 3, 12]


def test_both_paths_of_a_stage_give_one_shape(model: AnyDepthYolo) -> None:
    with torch.no_grad():
        maps = model.features(torch.rand(1, 3, 64, 96), DepthConfig.full())
        for name in STAGES:
            inputs = [maps[source] for source in STAGE_INPUTS[name]]
            essential = model.stages[name](*inputs, path=ESSENTIAL)
            full = model.stages[name](*inputs, path=FULL)
            assert essential.shape == full.shape
            assert not torch.equal(essential, full)


@given(
    paths=st.tuples(*[st.booleans()] * 8),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
@settings(max_examples=25, deadline=None)
def test_any_mixture_at_any_size_is_finite_and_of_the_right_shape(
    model: AnyDepthYolo, paths: tuple[bool, ...], height: int, width: int
) -> None:
    with torch.no_grad():
        outputs = model(torch.rand(2, 3, 32 * height, 32 * width), DepthConfig(paths))
    cells = height * width * (16 + 4 + 1)
    assert outputs["logits"].shape == (2, cells, 6)
    assert outputs["boxes"].shape == (2, cells, 4)
    assert all(value.isfinite().all() for value in outputs.values())


def test_gradients_reach_the_parameters_of_a_configuration_and_no_others() -> None:
    torch.manual_seed(1)
    network = build_model("yolo-t", 6).train()
    randomise(network)
    picks = random.Random(0)
    for _ in range(3):
        config = DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES))
        network.zero_grad(set_to_none=True)
        outputs = network(torch.rand(2, 3, 64, 64), config)
        (outputs["logits"].square().mean() + outputs["boxes"].square().mean()).backward()
        for name, parameter in network.named_parameters():
            used = parameter.requires_grad and _is_used(network, name, config)
            reached = parameter.grad is not None
            assert reached == used, f"{name} under {config}: gradient {reached}, expected {used}"


def _is_used(network: AnyDepthYolo, name: str, config: DepthConfig) -> bool:
    """Whether a configuration reads a parameter, told from its name alone."""
    if not name.startswith("stages."):
        return True
    _, stage_name, *rest = name.split(".")
    full = config.path(stage_name) == FULL
    stage = network.stages[stage_name].stage
    inner = ".".join(rest)
    if inner.startswith("stage.blocks.") and int(rest[2]) >= stage.num_essential:
        return full
    if ".norm.full." in inner:
        return full
    if ".norm.essential." in inner or inner.startswith("stage.aggregator.essential."):
        return not full
    if inner.startswith("stage.aggregator.full.") and stage.aggregator.essential is not None:
        return full
    return True


def test_each_pass_moves_only_the_statistics_of_its_own_path() -> None:
    network = build_model("yolo-t", 6).train()
    before = copy.deepcopy(network.state_dict())
    network(torch.rand(2, 3, 64, 64), DepthConfig.base())
    for name, module in network.named_modules():
        if isinstance(module, SwitchableBatchNorm2d):
            assert torch.equal(module.full.running_mean, before[f"{name}.full.running_mean"])
            assert not torch.equal(module.essential.running_mean, before[f"{name}.essential.running_mean"])


def test_super_net_equals_the_static_network_bit_for_bit() -> None:
    torch.manual_seed(2)
    any_depth = build_model("yolo-t", 6, fine=None).eval()
    randomise(any_depth)
    static = build_model("yolo-t", 6, fine=None, any_depth=False).eval()
    state = {key.replace(".norm.full.", ".norm."): value for key, value in any_depth.state_dict().items()}
    static.load_state_dict({key: state[key] for key in static.state_dict()})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = any_depth(image), static(image)
    assert torch.equal(ours["logits"], theirs["logits"])
    assert torch.equal(ours["boxes"], theirs["boxes"])


def test_unknown_names_sizes_and_depths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"yolo-q.*yolo-t"):
        build_model("yolo-q", 6)
    with pytest.raises(ValueError, match=r"image size 30x64.*below one stride"):
        build_model("yolo-t", 6)(torch.rand(1, 3, 30, 64))
    with pytest.raises(ValueError, match="static"):
        build_model("yolo-t", 6, any_depth=False)(torch.rand(1, 3, 64, 64), DepthConfig.base())

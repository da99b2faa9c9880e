"""What training AnyDepth-DETR reaches: parameters by path and exit, statistics by path, nothing that is frozen."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_weights import randomise_everything
from spaces import STAGES
from torch import Tensor, nn

from anydepth_perception.depth.space import FULL, DepthConfig
from training.families import build_model
from training.models.detr import AnyDepthDetr
from training.models.targets import Targets, pad_targets

ESSENTIAL_BLOCKS = {
    "detr-r18": dict(zip(STAGES, (1, 1, 1, 1, 1, 1, 1, 1), strict=True)),
    "detr-r50": dict(zip(STAGES, (2, 2, 3, 2, 1, 1, 1, 1), strict=True)),
}
"""k of each stage (AnyDepth, Table 4)."""


@pytest.fixture(scope="module")
def small() -> AnyDepthDetr:
    """R18, of which nothing is frozen."""
    return network_of("detr-r18")


@pytest.fixture(scope="module")
def frozen() -> AnyDepthDetr:
    """R50, whose stem and batch norms are frozen by the published recipe."""
    return network_of("detr-r50")


def network_of(name: str) -> AnyDepthDetr:
    torch.manual_seed(0)
    network = build_model(name, 6).train()
    randomise_everything(network)
    return network


def two_images() -> tuple[Tensor, Targets]:
    """Images [2, 3, 64, 96], three objects in the first and one in the second."""
    boxes = [torch.tensor([[5.0, 5, 30, 40], [20, 10, 60, 50], [50, 30, 90, 60]]), torch.tensor([[10.0, 10, 80, 60]])]
    labels = [torch.tensor([0, 3, 5]), torch.tensor([2])]
    return torch.rand(2, 3, 64, 96), pad_targets(boxes, labels, [torch.zeros(0, 4)] * 2)


def outputs_in(outputs: Any) -> Iterator[Tensor]:
    """Every logit and box among what a network in training puts out."""
    if isinstance(outputs, list):
        for each in outputs:
            yield from outputs_in(each)
    elif isinstance(outputs, dict):
        for name, value in outputs.items():
            yield from [value] if name in ("logits", "boxes_cxcywh") else outputs_in(value)


def is_frozen(model: str, name: str) -> bool:
    """Whether the published recipe leaves a parameter alone: R50's stem, and its norms but for the essential ones."""
    in_backbone = name.startswith(tuple(f"stages.{stage}." for stage in STAGES[:4]))
    return model == "detr-r50" and (
        name.startswith("stem.") or (in_backbone and ".norm." in name and ".norm.essential." not in name)
    )


def is_used(network: AnyDepthDetr, name: str, config: DepthConfig) -> bool:
    """Whether a configuration reads a parameter, told from its name and the papers' rules."""
    part, _, rest = name.partition(".")
    if part == "decoder":
        kind, index, *_ = rest.split(".")
        return kind not in ("layers", "score", "box") or int(index) < config.exit
    if part != "stages":
        return True
    stage, _, rest = rest.partition(".")
    full = network.space.path(config, stage) == FULL
    _, is_block, after = rest.removeprefix("block.").partition("blocks.")
    if is_block and int(after.split(".")[0]) >= ESSENTIAL_BLOCKS[network.name][stage]:
        return full
    if ".norm.full." in rest:
        return full
    return not (full and ".norm.essential." in rest)


def check_gradients(network: AnyDepthDetr, config: DepthConfig) -> None:
    network.zero_grad(set_to_none=True)
    images, targets = two_images()
    sum(value.square().mean() for value in outputs_in(network(images, config, targets))).backward()
    for name, parameter in network.named_parameters():
        expected = is_used(network, name, config) and not is_frozen(network.name, name)
        reached = parameter.grad is not None
        assert reached == expected, f"{name} under {config}: gradient {reached}, expected {expected}"
        # A bias of the keys shifts all of a query's scores alike: attention does not notice.
        if reached and not name.endswith(".key.bias"):
            assert parameter.grad.any(), f"{name} under {config}: gradient of zero"


@given(paths=st.tuples(*[st.booleans()] * 8), exit_index=st.integers(1, 3))
@example(paths=(True,) * 8, exit_index=3)
@example(paths=(False,) * 8, exit_index=1)
@settings(max_examples=6, deadline=None)
def test_gradients_reach_the_parameters_of_a_configuration_and_no_others(
    small: AnyDepthDetr, paths: tuple[bool, ...], exit_index: int
) -> None:
    check_gradients(small, DepthConfig(paths, exit_index))


@pytest.mark.parametrize("depth", ["full", "base", "FEEF.EFFE.d1"])
def test_gradients_leave_the_frozen_parts_of_r50_alone(frozen: AnyDepthDetr, depth: str) -> None:
    check_gradients(frozen, frozen.space.parse(depth))


def test_parameters_that_take_no_gradient_are_the_frozen_ones(frozen: AnyDepthDetr) -> None:
    untrained = {name for name, parameter in frozen.named_parameters() if not parameter.requires_grad}
    assert untrained == {name for name, _ in frozen.named_parameters() if is_frozen("detr-r50", name)}
    assert any(".norm.full." in name for name in untrained)


def test_nothing_of_r18_is_frozen(small: AnyDepthDetr) -> None:
    assert all(parameter.requires_grad for parameter in small.parameters())


def moved_statistics(network: AnyDepthDetr, config: DepthConfig) -> set[str]:
    """Names of the batch norms whose statistics a pass in training mode changes; any batch counts."""

    def statistics() -> dict[str, tuple[Tensor, Tensor, int]]:
        return {
            name: (module.running_mean.clone(), module.running_var.clone(), int(module.num_batches_tracked))
            for name, module in network.named_modules()
            if isinstance(module, nn.BatchNorm2d)
        }

    before = statistics()
    images, targets = two_images()
    with torch.no_grad():
        network.train()(images, config, targets)
    after = statistics()
    return {
        name
        for name, (mean, variance, batches) in after.items()
        if not torch.equal(mean, before[name][0])
        or not torch.equal(variance, before[name][1])
        or batches != before[name][2]
    }


@pytest.mark.parametrize("model", ["small", "frozen"])
@pytest.mark.parametrize("seed", range(3))
def test_a_pass_moves_the_statistics_of_its_own_paths_and_no_others(
    model: str, seed: int, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(model)
    picks = random.Random(seed)
    config = DepthConfig(tuple(picks.random() < 0.5 for _ in STAGES), 1)
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    expected = {
        name
        for name in norms
        if is_used(network, f"{name}.weight", config) and not is_frozen(network.name, f"{name}.weight")
    }
    assert moved_statistics(network, config) == expected
    assert len(expected) < len(norms)


@pytest.mark.parametrize("exit_index", [2, 3])
def test_logits_of_a_layer_do_not_train_the_boxes_of_the_layers_before(small: AnyDepthDetr, exit_index: int) -> None:
    small.zero_grad(set_to_none=True)
    images, targets = two_images()
    small(images, DepthConfig((True,) * 8, exit_index), targets)["logits"].square().mean().backward()
    assert all(parameter.grad is None for parameter in small.decoder.box.parameters())


def test_boxes_of_a_layer_train_the_box_head_of_the_layer_before_and_no_earlier(small: AnyDepthDetr) -> None:
    small.zero_grad(set_to_none=True)
    images, targets = two_images()
    small(images, None, targets)["boxes_cxcywh"].square().mean().backward()
    reached = [any(parameter.grad is not None for parameter in head.parameters()) for head in small.decoder.box]
    assert reached == [False, True, True]


def test_what_the_layers_put_out_does_not_train_query_selection(small: AnyDepthDetr) -> None:
    small.zero_grad(set_to_none=True)
    images, targets = two_images()
    sum(value.square().mean() for value in outputs_in(small(images, None, targets)["layers"])).backward()
    assert all(parameter.grad is None for parameter in small.decoder.selection.parameters())


def test_outputs_of_query_selection_train_its_heads(small: AnyDepthDetr) -> None:
    small.zero_grad(set_to_none=True)
    images, targets = two_images()
    sum(value.square().mean() for value in outputs_in(small(images, None, targets)["encoder"])).backward()
    assert all(parameter.grad is not None for parameter in small.decoder.selection.parameters())


def test_the_label_of_padding_is_not_trained(small: AnyDepthDetr) -> None:
    small.zero_grad(set_to_none=True)
    images, targets = two_images()
    outputs = small(images, None, targets)
    assert (outputs["denoising"].labels == 6).any()
    sum(value.square().mean() for value in outputs_in(outputs)).backward()
    assert not small.decoder.denoising_embedding.weight.grad[6].any()

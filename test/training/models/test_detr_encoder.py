"""RT-DETR's backbone and hybrid encoder piece by piece: positions, AIFI, RepVgg blocks, CSP stages, shortcuts."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from random_weights import randomise_everything
from torch import Tensor, nn
from torch.nn import functional as F

from anydepth_perception.depth.space import ESSENTIAL, FULL
from training.models.batchnorm import FrozenBatchNorm2d, SwitchableBatchNorm2d
from training.models.encoder import (
    BottomUpStage,
    CspRepStage,
    IntraScaleEncoder,
    RepVggBlock,
    TopDownStage,
    sincos_position,
)
from training.models.resnet import ResidualStage, Stem
from training.models.stage import ANY_DEPTH


def randomised(module: nn.Module) -> nn.Module:
    module.double().eval()
    randomise_everything(module)
    return module


def normalise(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """A batch norm in evaluation mode, written out."""
    scale = norm.weight / torch.sqrt(norm.running_var + 1e-5)
    return (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize(("height", "width", "channels"), [(3, 5, 8), (1, 1, 4), (7, 2, 16)])
def test_positions_are_sine_and_cosine_of_row_then_column(height: int, width: int, channels: int) -> None:
    found = sincos_position(height, width, channels, torch.zeros(0, dtype=torch.float64))
    assert found.shape == (1, height * width, channels)
    quarter = channels // 4
    omegas = [1 / 10000 ** (i / quarter) for i in range(quarter)]
    for row in range(height):
        for column in range(width):
            expected = [f(place * omega) for place in (row, column) for f in (math.sin, math.cos) for omega in omegas]
            assert found[0, row * width + column].tolist() == pytest.approx(expected)


@torch.no_grad()
def test_aifi_is_a_post_norm_layer_with_positions_on_queries_and_keys_alone() -> None:
    torch.manual_seed(0)
    module = randomised(IntraScaleEncoder(24, 32, 64))
    p5 = torch.randn(2, 24, 3, 5, dtype=torch.float64)
    x = normalise(F.conv2d(p5, module.project.conv.weight), module.project.norm)
    tokens = x.flatten(2).transpose(1, 2)
    placed = tokens + sincos_position(3, 5, 32, tokens)
    oracle = nn.MultiheadAttention(32, 8, batch_first=True).double()
    attention = module.attention
    oracle.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]))
    oracle.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key.bias, attention.value.bias]))
    oracle.out_proj.load_state_dict(attention.output.state_dict())
    y = module.norm1(tokens + oracle(placed, placed, tokens)[0])
    y = module.norm2(y + module.linear2(F.gelu(module.linear1(y))))
    y = y.transpose(1, 2).reshape(2, 32, 3, 5)
    expected = F.silu(normalise(F.conv2d(y, module.lateral.conv.weight), module.lateral.norm))
    assert torch.allclose(module(p5), expected, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("path", [ESSENTIAL, FULL])
def test_rep_vgg_block_sums_two_normalised_convolutions(path: str) -> None:
    torch.manual_seed(0)
    block = randomised(RepVggBlock(8, switchable=True))
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    three = normalise(F.conv2d(x, block.conv1.conv.weight, padding=1), getattr(block.conv1.norm, path))
    one = normalise(F.conv2d(x, block.conv2.conv.weight), getattr(block.conv2.norm, path))
    assert block.conv1.conv.kernel_size == (3, 3)
    assert torch.allclose(block(x, path), F.silu(three + one), atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("expansion", [0.5, 1.0])
@pytest.mark.parametrize(("path", "num_blocks"), [(ESSENTIAL, 1), (FULL, 3)])
def test_csp_stage_adds_its_two_branches(expansion: float, path: str, num_blocks: int) -> None:
    torch.manual_seed(0)
    stage = randomised(CspRepStage(16, 8, expansion=expansion, any_depth=ANY_DEPTH))
    x = torch.randn(2, 16, 4, 3, dtype=torch.float64)
    y = stage.conv1(x)
    for block in stage.blocks[:num_blocks]:
        y = block(y, path)
    y = y + stage.conv2(x)
    assert isinstance(stage.conv3, nn.Identity) == (expansion == 1.0)
    assert torch.allclose(stage(x, path), y if expansion == 1.0 else stage.conv3(y), atol=1e-12)


@torch.no_grad()
def test_top_down_stage_concatenates_the_upsampled_level_first() -> None:
    torch.manual_seed(0)
    stage = randomised(TopDownStage(12, 8, expansion=1.0, fine=None, pool=1, lateral=True, any_depth=ANY_DEPTH))
    high, low = torch.randn(1, 8, 2, 3, dtype=torch.float64), torch.randn(1, 12, 3, 5, dtype=torch.float64)
    upsampled = high.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[:, :, :3, :5]
    projected = normalise(F.conv2d(low, stage.project.conv.weight), stage.project.norm)
    expected = stage.lateral(stage.block(torch.cat([upsampled, projected], dim=1), FULL))
    assert torch.allclose(stage(high, low, FULL), expected, atol=1e-12)


@torch.no_grad()
def test_bottom_up_stage_concatenates_the_downsampled_level_first() -> None:
    torch.manual_seed(0)
    stage = randomised(BottomUpStage(8, expansion=1.0, any_depth=ANY_DEPTH))
    low, high = torch.randn(1, 8, 5, 6, dtype=torch.float64), torch.randn(1, 8, 3, 3, dtype=torch.float64)
    convolved = F.conv2d(low, stage.downsample.conv.weight, stride=2, padding=1)
    downsampled = F.silu(normalise(convolved, stage.downsample.norm))
    expected = stage.block(torch.cat([downsampled, high], dim=1), FULL)
    assert torch.allclose(stage(low, high, FULL), expected, atol=1e-12)


def residual_stage(*, bottleneck: bool, num_blocks: int = 4, frozen: bool = False) -> ResidualStage:
    torch.manual_seed(0)
    stage = ResidualStage(12, 8, num_blocks, stride=2, bottleneck=bottleneck, any_depth=ANY_DEPTH, frozen=frozen)
    return randomised(stage)


def block_by_hand(block: nn.Module, x: Tensor, path: str, *, stride: int) -> Tensor:
    """A residual block, written out: the stride in the first 3x3 convolution, average pooling on the shortcut."""

    def conv(unit: nn.Module, y: Tensor, step: int = 1) -> Tensor:
        weight = unit.conv.weight
        norm = getattr(unit.norm, path) if isinstance(unit.norm, SwitchableBatchNorm2d) else unit.norm
        return normalise(F.conv2d(y, weight, stride=step, padding=weight.shape[2] // 2), norm)

    if block.conv3 is not None:
        y = torch.relu(conv(block.conv2, torch.relu(conv(block.conv1, x)), stride))
        y = conv(block.conv3, y)
    else:
        y = conv(block.conv2, torch.relu(conv(block.conv1, x, stride)))
    if block.shortcut is not None:
        # A window at the border averages the cells that it covers.
        sums = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 2)
        cells = F.avg_pool2d(F.pad(torch.ones_like(x), (0, 1, 0, 1)), 2, 2)
        x = conv(block.shortcut.project, sums / cells)
    return torch.relu(x + y)


@torch.no_grad()
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(("path", "num_blocks"), [(ESSENTIAL, 2), (FULL, 4)])
def test_residual_stage_runs_the_blocks_of_its_path(bottleneck: bool, path: str, num_blocks: int) -> None:
    stage = residual_stage(bottleneck=bottleneck)
    x = torch.randn(2, 12, 7, 5, dtype=torch.float64)
    y = x
    for i, block in enumerate(stage.blocks[:num_blocks]):
        y = block_by_hand(block, y, path, stride=2 if i == 0 else 1)
    assert torch.allclose(stage(x, path), y, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("bottleneck", [False, True])
def test_refinement_blocks_have_no_say_in_the_essential_path(bottleneck: bool) -> None:
    stage = residual_stage(bottleneck=bottleneck)
    other = copy.deepcopy(stage)
    randomise_everything(other.blocks[2:], seed=9)
    x = torch.randn(1, 12, 6, 6, dtype=torch.float64)
    assert torch.equal(stage(x, ESSENTIAL), other(x, ESSENTIAL))
    assert not torch.allclose(stage(x, FULL), other(x, FULL))


def test_only_essential_blocks_have_two_norms_and_their_shortcut_too() -> None:
    stage = residual_stage(bottleneck=True)
    switchable = {name for name, module in stage.named_modules() if isinstance(module, SwitchableBatchNorm2d)}
    assert switchable == {
        *(f"blocks.{i}.conv{j}.norm" for i in (0, 1) for j in (1, 2, 3)),
        "blocks.0.shortcut.project.norm",
    }


def test_only_the_essential_rep_vgg_block_has_two_norms_in_both_branches() -> None:
    stage = CspRepStage(16, 8, expansion=0.5, any_depth=ANY_DEPTH)
    switchable = {name for name, module in stage.named_modules() if isinstance(module, SwitchableBatchNorm2d)}
    assert switchable == {"blocks.0.conv1.norm", "blocks.0.conv2.norm"}


def test_training_mode_leaves_frozen_norms_in_evaluation_and_puts_essential_ones_in_training() -> None:
    stage = residual_stage(bottleneck=True, frozen=True).train()
    norms = dict(stage.named_modules())
    assert isinstance(norms["blocks.0.conv1.norm"].full, FrozenBatchNorm2d)
    assert not norms["blocks.0.conv1.norm"].full.training
    assert norms["blocks.0.conv1.norm"].essential.training
    assert not norms["blocks.3.conv1.norm"].training


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47)])
def test_stem_divides_each_side_by_four_rounded_up(height: int, width: int) -> None:
    assert Stem(frozen=False)(torch.rand(2, 3, height, width)).shape == (2, 64, -(-height // 4), -(-width // 4))


def test_frozen_stem_takes_no_gradient() -> None:
    assert not any(parameter.requires_grad for parameter in Stem(frozen=True).parameters())

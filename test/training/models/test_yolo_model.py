"""AnyDepth-YOLO: interchangeable paths at any size, the static baseline, and where gradients go."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_weights import randomise
from spaces import STAGES
from torch import nn

from anydepth_perception.depth.space import ESSENTIAL, FULL, DepthConfig, DepthConfigError
from training.families import build_model
from training.models.batchnorm import SwitchableBatchNorm2d
from training.models.detector import AnyDepthDetector
from training.models.stage import STATIC, num_essential_blocks
from training.models.yolo_blocks import AreaAttention

NAMES = ("yolo-t", "yolo-n")
"""Small enough to run often: blocks of C3k with every stage skippable, and bottlenecks with single-block stages."""

SIDES = st.one_of(st.integers(1, 5).map(lambda cells: 32 * cells), st.integers(32, 161))
"""Image sides in pixels: multiples of 32, and any other, odd ones included."""

PATHS = st.tuples(*[st.booleans()] * len(STAGES))


def build_random(name: str, **options: object) -> AnyDepthDetector:
    torch.manual_seed(0)
    network = build_model(name, 6, **options)
    randomise(network)
    return network


def build_meta(name: str, **options: object) -> AnyDepthDetector:
    """A network of shapes alone, for what it says about itself and what it refuses."""
    with torch.device("meta"):
        return build_model(name, **{"num_classes": 6, **options}).eval()


def config_of(network: AnyDepthDetector, paths: tuple[bool, ...]) -> DepthConfig:
    """`paths` with the full path wherever the network has no other."""
    return DepthConfig(
        tuple(full or name not in network.space.skippable for name, full in zip(STAGES, paths, strict=True))
    )


@pytest.fixture(scope="module")
def networks() -> dict[str, AnyDepthDetector]:
    return {name: build_random(name).eval() for name in NAMES}


@pytest.fixture(scope="module")
def trained_networks() -> dict[str, AnyDepthDetector]:
    return {name: build_random(name).train() for name in NAMES}


def test_essential_path_runs_half_of_the_blocks_rounded_up() -> None:
    assert [num_essential_blocks(n) for n in (1, 2, 3, 4, 6, 23)] == [1, 1, 2, 2, 3, 12]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("yolo-t", "EEEE.EEEE"),
        ("yolo-n", "FFEE.FFFF"),
        ("yolo-s", "FFEE.FFFF"),
        ("yolo-m", "FFEE.FFFF"),
        ("yolo-l", "EEEE.EEEE"),
        ("yolo-x", "EEEE.EEEE"),
    ],
)
def test_base_net_skips_wherever_a_stage_has_something_to_skip(name: str, base: str) -> None:
    assert str(build_meta(name).space.base) == base


@pytest.mark.parametrize(
    ("name", "options", "asked", "runs"),
    [
        ("yolo-t", {}, "FEFE.EEEF", "FEFE.EEEF"),
        ("yolo-n", {}, "EEEE.EEEE", "FFEE.FFFF"),
        ("yolo-t", {"any_depth": STATIC}, "EEEE.EEEE", "FFFF.FFFF"),
        ("detr-r18", {"any_depth": STATIC}, "EEEE.EEEE.d2", "FFFF.FFFF.d2"),
    ],
)
def test_stages_without_an_essential_path_run_their_full_one(
    name: str, options: dict[str, object], asked: str, runs: str
) -> None:
    network = build_meta(name, **options)
    config = network.space.executed(network.space.parse(asked))
    assert str(config) == runs
    network.check_config(config)


def test_base_net_of_a_static_network_is_its_full_depth() -> None:
    assert str(build_meta("yolo-t", any_depth=STATIC).space.base) == "FFFF.FFFF"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 96), (33, 161)])
def test_both_paths_of_a_stage_give_one_shape(
    networks: dict[str, AnyDepthDetector], name: str, size: tuple[int, int]
) -> None:
    network = networks[name]
    with torch.no_grad():
        maps = network.features(torch.rand(1, 3, *size), network.space.full)
        for stage in network.space.skippable:
            inputs = [maps[source] for source in network.map_inputs[stage]]
            essential = network.stages[stage](*inputs, path=ESSENTIAL)
            assert essential.shape == maps[stage].shape, stage
            assert not torch.equal(essential, maps[stage]), stage


@given(name=st.sampled_from(NAMES), paths=PATHS, height=SIDES, width=SIDES)
@settings(max_examples=40, deadline=None)
def test_any_mixture_at_any_size_is_finite_and_of_the_right_shape(
    networks: dict[str, AnyDepthDetector], name: str, paths: tuple[bool, ...], height: int, width: int
) -> None:
    network = networks[name]
    with torch.no_grad():
        outputs = network(torch.rand(2, 3, height, width), config_of(network, paths))
    cells = sum(math.ceil(height / stride) * math.ceil(width / stride) for stride in (8, 16, 32))
    assert outputs["logits"].shape == (2, cells, 6)
    assert outputs["boxes"].shape == (2, cells, 4)
    assert all(value.isfinite().all() for value in outputs.values())


def test_cell_centres_of_odd_sizes_lie_on_the_grid_of_each_stride(networks: dict[str, AnyDepthDetector]) -> None:
    with torch.no_grad():
        outputs = networks["yolo-t"](torch.rand(1, 3, 33, 47))
    # 5x6, 3x3 and 2x2 cells.
    expected = [(8 * x + 4, 8 * y + 4) for y in range(5) for x in range(6)]
    expected += [(16 * x + 8, 16 * y + 8) for y in range(3) for x in range(3)]
    expected += [(32 * x + 16, 32 * y + 16) for y in range(2) for x in range(2)]
    assert outputs["points"].tolist() == [[float(x), float(y)] for x, y in expected]


@pytest.mark.parametrize(("size", "last_strip"), [((4, 8), range(24, 32)), ((5, 7), range(26, 35))])
def test_area_attention_stays_within_four_strips_also_where_tokens_do_not_divide(
    size: tuple[int, int], last_strip: range
) -> None:
    torch.manual_seed(0)
    attention = AreaAttention(32, num_heads=2, area=4, switchable=False).eval()
    nn.init.zeros_(attention.position.conv.weight)  # it alone looks across strips
    x = torch.randn(1, 32, *size)
    changed = x.clone()
    changed[..., -1, -1] += 1
    with torch.no_grad():
        difference = (attention(changed, FULL) - attention(x, FULL)).abs().amax(dim=1).flatten()
    assert difference.nonzero().flatten().tolist() == list(last_strip)


@given(name=st.sampled_from(NAMES), paths=PATHS, height=SIDES, width=SIDES)
@settings(max_examples=20, deadline=None)
def test_gradients_reach_the_parameters_of_a_configuration_and_no_others(
    trained_networks: dict[str, AnyDepthDetector], name: str, paths: tuple[bool, ...], height: int, width: int
) -> None:
    network = trained_networks[name]
    config = config_of(network, paths)
    network.zero_grad(set_to_none=True)
    outputs = network(torch.rand(2, 3, height, width), config)
    (outputs["logits"].square().mean() + outputs["boxes"].square().mean()).backward()
    for parameter_name, parameter in network.named_parameters():
        used = parameter.requires_grad and _is_used(network, parameter_name, config)
        reached = parameter.grad is not None
        assert reached == used, f"{parameter_name} under {config}: gradient {reached}, expected {used}"


def _is_used(network: AnyDepthDetector, name: str, config: DepthConfig) -> bool:
    """Whether a configuration reads a parameter, told from its name alone."""
    if not name.startswith("stages."):
        return True
    _, stage_name, *rest = name.split(".")
    full = network.space.path(config, stage_name) == FULL
    stage = network.stages[stage_name].stage
    inner = ".".join(rest)
    if inner.startswith("stage.blocks.") and int(rest[2]) >= stage.blocks.num_essential:
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
    network(torch.rand(2, 3, 64, 64), network.space.base)
    for name, module in network.named_modules():
        if isinstance(module, SwitchableBatchNorm2d):
            assert torch.equal(module.full.running_mean, before[f"{name}.full.running_mean"])
            assert not torch.equal(module.essential.running_mean, before[f"{name}.essential.running_mean"])


@pytest.mark.parametrize(("name", "size"), [("yolo-t", (64, 96)), ("yolo-n", (33, 65)), ("yolo-l", (64, 64))])
def test_super_net_equals_the_static_network_bit_for_bit(name: str, size: tuple[int, int]) -> None:
    any_depth = build_random(name, fine=None).eval()
    static = build_model(name, 6, fine=None, any_depth=STATIC).eval()
    state = {key.replace(".norm.full.", ".norm."): value for key, value in any_depth.state_dict().items()}
    static.load_state_dict({key: state[key] for key in static.state_dict()})
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        ours, theirs = any_depth(image), static(image)
    assert torch.equal(ours["logits"], theirs["logits"])
    assert torch.equal(ours["boxes"], theirs["boxes"])


def test_an_unknown_name_is_refused_with_the_accepted_ones() -> None:
    with pytest.raises(ValueError, match=r"'yolo-q'.*yolo-t"):
        build_model("yolo-q", 6)


def test_a_detector_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"yolo-t: 0 classes; .*at least 1"):
        build_meta("yolo-t", num_classes=0)


@pytest.mark.parametrize("size", [(31, 64), (64, 31)])
def test_an_image_below_one_stride_is_refused_with_the_smallest_side(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"image size {size[0]}x{size[1]}.*below one stride.*32 or more"):
        build_meta("yolo-t")(torch.empty(1, 3, *size, device="meta"))


def test_images_with_channels_last_are_refused_with_the_expected_layout() -> None:
    with pytest.raises(ValueError, match=r"\[1, 64, 64, 3\]; expected \[B, 3, H, W\]"):
        build_meta("yolo-t")(torch.empty(1, 64, 64, 3, device="meta"))


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        (
            {"name": "yolo-n"},
            DepthConfig.parse("EFFF.FFFF"),
            r"EFFF\.FFFF: stage p2 of yolo-n has a single block .*essential path are p4, p5",
        ),
        (
            {"name": "yolo-t"},
            DepthConfig((True,) * 8, exit=4),
            r"FFFF\.FFFF\.d4: yolo-t has no decoder exits; leave out \.d4",
        ),
        (
            {"name": "yolo-t", "any_depth": STATIC},
            DepthConfig((False,) * 8),
            r"EEEE\.EEEE: yolo-t was built as a static network, .*FFFF\.FFFF",
        ),
    ],
)
def test_a_depth_that_the_network_lacks_is_refused(
    options: dict[str, object], config: DepthConfig, message: str
) -> None:
    with pytest.raises(DepthConfigError, match=message):
        build_meta(**options)(torch.empty(1, 3, 64, 64, device="meta"), config)

"""AnyDepth-DETR as a whole: any mixture of paths and exits at any size, the static baseline, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_weights import randomise_everything
from spaces import STAGES

from anydepth_perception.depth.space import ESSENTIAL, FULL, DepthConfig, DepthConfigError
from training.families import build_model
from training.models.decoder import Decoder
from training.models.detr import MAP_INPUTS, AnyDepthDetr, xyxy_pixels
from training.models.stage import STATIC

STRIDES = dict(
    zip(("stem", "p2", "p3", "p4", "p5", "aifi", *STAGES[4:]), (4, 4, 8, 16, 32, 32, 16, 8, 16, 32), strict=True)
)
"""Pixels of the image per cell of each feature map."""


@pytest.fixture(scope="module")
def model() -> AnyDepthDetr:
    torch.manual_seed(0)
    network = build_model("detr-r18", 6).eval()
    randomise_everything(network)
    return network


def cells_of(height: int, width: int) -> int:
    return sum(-(-height // stride) * -(-width // stride) for stride in (8, 16, 32))


SIDES = st.one_of(st.integers(1, 5).map(lambda cells: 32 * cells), st.integers(32, 160))


@given(paths=st.tuples(*[st.booleans()] * 8), exit_index=st.integers(1, 3), height=SIDES, width=SIDES)
@example(paths=(True,) * 8, exit_index=3, height=32, width=32)
@example(paths=(False,) * 8, exit_index=1, height=33, width=159)
@settings(max_examples=20, deadline=None)
def test_any_mixture_at_any_size_is_finite_and_of_the_right_shape(
    model: AnyDepthDetr, paths: tuple[bool, ...], exit_index: int, height: int, width: int
) -> None:
    with torch.no_grad():
        outputs = model(torch.rand(2, 3, height, width), DepthConfig(paths, exit_index))
    queries = min(300, cells_of(height, width))
    assert outputs["logits"].shape == (2, queries, 6)
    assert outputs["boxes"].shape == outputs["boxes_cxcywh"].shape == (2, queries, 4)
    assert all(value.isfinite().all() for value in outputs.values())
    assert ((outputs["boxes_cxcywh"] >= 0) & (outputs["boxes_cxcywh"] <= 1)).all()


def test_boxes_are_those_of_cxcywh_in_pixels_of_the_network(model: AnyDepthDetr) -> None:
    with torch.no_grad():
        outputs = model(torch.rand(1, 3, 96, 160))
    cx, cy, w, h = outputs["boxes_cxcywh"].unbind(2)
    expected = torch.stack([(cx - w / 2) * 160, (cy - h / 2) * 96, (cx + w / 2) * 160, (cy + h / 2) * 96], dim=2)
    assert torch.allclose(outputs["boxes"], expected, atol=1e-4)


def test_pixels_of_a_known_box() -> None:
    box = xyxy_pixels(torch.tensor([0.5, 0.25, 0.2, 0.5]), (100, 200))
    assert torch.allclose(box, torch.tensor([80.0, 0.0, 120.0, 50.0]))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 65)])
def test_both_paths_of_every_stage_give_one_shape_and_different_values(
    model: AnyDepthDetr, height: int, width: int
) -> None:
    with torch.no_grad():
        maps = model.features(torch.rand(1, 3, height, width), model.space.full)
        for name in STAGES:
            inputs = [maps[source] for source in MAP_INPUTS[name]]
            essential, full = (model.stages[name](*inputs, path=path) for path in (ESSENTIAL, FULL))
            assert essential.shape == full.shape, name
            assert not torch.allclose(essential, full, rtol=0.01), name


@given(height=SIDES, width=SIDES)
@settings(max_examples=8, deadline=None)
def test_feature_maps_have_the_stride_of_their_stage(model: AnyDepthDetr, height: int, width: int) -> None:
    with torch.no_grad():
        maps = model.features(torch.rand(1, 3, height, width), model.space.base)
    found = {name: tuple(x.shape[2:]) for name, x in maps.items()}
    assert found == {name: (-(-height // stride), -(-width // stride)) for name, stride in STRIDES.items()}


@pytest.mark.parametrize(("size", "depth"), [("r18", "EEEE.EEEE.d2"), ("r34", "EEEE.EEEE.d3"), ("r50", "EEEE.EEEE.d4")])
def test_base_net_is_all_essential_with_two_thirds_of_the_decoder(size: str, depth: str) -> None:
    with torch.device("meta"):
        assert str(build_model(f"detr-{size}", 6).space.base) == depth


@pytest.mark.parametrize(("name", "depth"), [("detr-r18", "FFFF.FFFF.d2"), ("detr-r50", "FFFF.FFFF.d6")])
def test_super_net_equals_the_static_network_bit_for_bit(name: str, depth: str) -> None:
    any_depth = build_model(name, 6, fine=None).eval()
    randomise_everything(any_depth)
    static = build_model(name, 6, fine=None, any_depth=STATIC).eval()
    state = {key.replace(".norm.full.", ".norm."): value for key, value in any_depth.state_dict().items()}
    static.load_state_dict({key: value for key, value in state.items() if ".norm.essential." not in key})
    image = torch.rand(1, 3, 64, 96)
    config = any_depth.space.parse(depth)
    with torch.no_grad():
        ours, theirs = any_depth(image, config), static(image, config)
    assert torch.equal(ours["logits"], theirs["logits"])
    assert torch.equal(ours["boxes"], theirs["boxes"])


@pytest.mark.parametrize("exit_index", [1, 2, 3])
def test_every_exit_equals_a_network_whose_decoder_ends_there(model: AnyDepthDetr, exit_index: int) -> None:
    decoder = Decoder([256] * 3, 6, exit_index)
    state = model.decoder.state_dict()
    decoder.load_state_dict({key: state[key] for key in decoder.state_dict()})
    truncated = copy.copy(model)
    truncated._modules = {**model._modules, "decoder": decoder.eval()}
    truncated.set_space(("selection", "exits"), exit_index)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours = model(image, DepthConfig((True,) * 8, exit_index))
        theirs = truncated(image)
    assert torch.equal(ours["logits"], theirs["logits"])
    assert torch.equal(ours["boxes"], theirs["boxes"])


def test_exits_differ(model: AnyDepthDetr) -> None:
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        logits = [model(image, DepthConfig((True,) * 8, exit_index))["logits"] for exit_index in (1, 2, 3)]
    assert not torch.allclose(logits[0], logits[1], rtol=0.01)
    assert not torch.allclose(logits[1], logits[2], rtol=0.01)


def test_fine_changes_nothing_before_training() -> None:
    torch.manual_seed(3)
    with_fine = build_model("detr-r18", 6).eval()
    without = build_model("detr-r18", 6, fine=None).eval()
    state = with_fine.state_dict()
    without.load_state_dict({key: state[key] for key in without.state_dict()})
    image = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        assert torch.equal(with_fine(image)["logits"], without(image)["logits"])


def test_detections_do_not_depend_on_the_other_images_of_a_batch(model: AnyDepthDetr) -> None:
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both, alone = model(images), model(images[1:])
    assert not torch.allclose(both["logits"][0], both["logits"][1], rtol=0.01)
    assert torch.allclose(both["logits"][1:], alone["logits"], atol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DepthConfig((True,) * 8, 7), r"d7 is out of range, detr-r18 has d1 to d3"),
        (DepthConfig((True,) * 8), r"detr-r18 needs a decoder exit, \.d1 to \.d3"),
    ],
)
def test_exits_that_the_decoder_lacks_are_refused(model: AnyDepthDetr, config: DepthConfig, message: str) -> None:
    with pytest.raises(DepthConfigError, match=message):
        model(torch.rand(1, 3, 64, 64), config)


def test_essential_paths_of_a_static_network_are_refused() -> None:
    static = build_model("detr-r18", 6, any_depth=STATIC)
    with pytest.raises(DepthConfigError, match=r"FFEF\.FFFF\.d3: detr-r18 was built as a static network"):
        static(torch.rand(1, 3, 64, 64), DepthConfig.parse("FFEF.FFFF.d3"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 31, 64), r"31x64.*32 or more"),
        ((1, 3, 64, 31), r"64x31.*32 or more"),
        ((1, 4, 64, 64), r"\[1, 4, 64, 64\].*\[B, 3, H, W\]"),
        ((3, 64, 64), r"\[3, 64, 64\].*\[B, 3, H, W\]"),
    ],
)
def test_images_of_a_wrong_shape_are_refused(model: AnyDepthDetr, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(torch.rand(shape))


@pytest.mark.parametrize("name", ["detr-r19", "detr-", "r18", "DETR-R18"])
def test_unknown_names_are_refused_with_those_accepted(name: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown model '{name}'.*detr-r18, detr-r34, detr-r50, detr-r101"):
        build_model(name, 6)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_a_detector_without_classes_is_refused(num_classes: int) -> None:
    with pytest.raises(ValueError, match=f"detr-r18: {num_classes} classes; a detector has at least 1"):
        build_model("detr-r18", num_classes)

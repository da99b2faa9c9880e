"""Conversion of original YOLOv12 state dicts: where every tensor lands, what is reported, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from yolo_original import original_state

from training.families import build_model
from training.models.fine import FineSettings
from training.models.stage import AnyDepthSettings
from training.models.yolo import AnyDepthYolo
from training.models.yolo_convert import from_original

CLASSES = 6

PLACES = {
    "model.0.conv.weight": "stem.conv1.conv.weight",
    "model.1.bn.running_var": "stem.conv2.norm.running_var",
    "model.3.bn.bias": "stages.p3.downsample.norm.bias",
    "model.5.conv.weight": "stages.p4.downsample.conv.weight",
    "model.7.bn.running_mean": "stages.p5.downsample.norm.running_mean",
    "model.15.bn.num_batches_tracked": "stages.pan_p4.downsample.norm.num_batches_tracked",
    "model.18.conv.weight": "stages.pan_p5.downsample.conv.weight",
    "model.2.cv1.conv.weight": "stages.p2.stage.entry.conv.weight",
    "model.4.cv2.bn.weight": "stages.p3.stage.aggregator.full.norm.weight",
    "model.6.m.1.0.attn.qk.conv.weight": "stages.p4.stage.blocks.1.first.attention.query_key.conv.weight",
    "model.6.m.0.1.attn.v.bn.weight": "stages.p4.stage.blocks.0.second.attention.value.norm.weight",
    "model.8.m.1.1.attn.proj.conv.weight": "stages.p5.stage.blocks.1.second.attention.projection.conv.weight",
    "model.8.m.0.0.attn.pe.conv.weight": "stages.p5.stage.blocks.0.first.attention.position.conv.weight",
    "model.8.m.0.0.mlp.0.conv.weight": "stages.p5.stage.blocks.0.first.mlp1.conv.weight",
    "model.6.m.0.1.mlp.1.bn.bias": "stages.p4.stage.blocks.0.second.mlp2.norm.bias",
    "model.11.m.0.cv1.conv.weight": "stages.fpn_p4.stage.blocks.0.conv1.conv.weight",
    "model.14.m.0.cv2.conv.weight": "stages.fpn_p3.stage.blocks.0.conv2.conv.weight",
    "model.17.m.0.cv3.bn.weight": "stages.pan_p4.stage.blocks.0.conv3.norm.weight",
    "model.20.m.0.m.0.cv2.conv.weight": "stages.pan_p5.stage.blocks.0.bottlenecks.0.conv2.conv.weight",
    "model.20.m.0.m.1.cv1.conv.weight": "stages.pan_p5.stage.blocks.0.bottlenecks.1.conv1.conv.weight",
    "model.21.cv2.0.1.conv.weight": "head.box.0.1.conv.weight",
    "model.21.cv2.2.2.bias": "head.box.2.2.bias",
    "model.21.cv3.0.0.0.conv.weight": "head.cls.0.0.conv.weight",
    "model.21.cv3.1.0.1.bn.weight": "head.cls.1.1.norm.weight",
    "model.21.cv3.1.1.0.conv.weight": "head.cls.1.2.conv.weight",
    "model.21.cv3.2.1.1.conv.weight": "head.cls.2.3.conv.weight",
    "model.21.cv3.2.2.weight": "head.cls.2.4.weight",
}
"""Where the original's tensors belong in a static network of any size, at least one for every name and every layer."""

PLACES_OF_SIZE = {
    "n": {
        "model.2.m.0.cv1.conv.weight": "stages.p2.stage.blocks.0.conv1.conv.weight",
        "model.4.m.0.cv2.bn.running_mean": "stages.p3.stage.blocks.0.conv2.norm.running_mean",
    },
    "l": {
        "model.6.gamma": "stages.p4.stage.gamma",
        "model.8.gamma": "stages.p5.stage.gamma",
        "model.2.m.1.m.0.cv1.bn.bias": "stages.p2.stage.blocks.1.bottlenecks.0.conv1.norm.bias",
    },
}


def build(size: str, *, fine: FineSettings | None = None, any_depth: bool = True) -> AnyDepthYolo:
    torch.manual_seed(1)
    network = build_model(f"yolo-{size}", CLASSES, fine=fine, any_depth=AnyDepthSettings(any_depth))
    assert isinstance(network, AnyDepthYolo)
    return network


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """As the original would save size `t`, the smallest with something to skip in every stage."""
    return original_state("t", CLASSES)


@pytest.mark.parametrize("size", ["t", "n", "l"])
def test_every_tensor_of_the_original_fills_one_of_the_static_network(size: str) -> None:
    source, network = original_state(size, CLASSES), build(size, any_depth=False)
    conversion = from_original(source, network)
    assert sorted(theirs for theirs, _ in conversion.matched) == sorted(source)
    assert sorted(ours for _, ours in conversion.matched) == sorted(network.state_dict())
    assert (conversion.missing, conversion.unexpected) == ((), ())


@pytest.mark.parametrize("size", ["n", "l"])
def test_tensors_land_where_they_belong(size: str) -> None:
    source = original_state(size, CLASSES)
    network = build(size, any_depth=False)
    network.load_state_dict(from_original(source, network).state)
    loaded = network.state_dict()
    for theirs, ours in (PLACES | PLACES_OF_SIZE[size]).items():
        assert torch.equal(loaded[ours], source[theirs]), f"{theirs} -> {ours}"


def test_full_paths_receive_what_the_static_network_does(state: dict[str, Tensor]) -> None:
    any_depth = from_original(state, build("t")).state
    static = from_original(state, build("t", any_depth=False)).state
    full = {key.replace(".norm.full.", ".norm."): value for key, value in any_depth.items()}
    assert all(torch.equal(full[key], value) for key, value in static.items())


def test_essential_norms_start_as_copies_of_the_full_ones(state: dict[str, Tensor]) -> None:
    converted = from_original(state, build("t")).state
    essential = [key for key in converted if ".norm.essential." in key]
    assert essential
    for key in essential:
        assert torch.equal(converted[key], converted[key.replace(".essential.", ".full.")]), key
    source = state["model.2.m.0.cv3.bn.running_var"]
    assert torch.equal(converted["stages.p2.stage.blocks.0.conv3.norm.essential.running_var"], source)


def test_dedicated_aggregators_start_as_the_leading_columns_of_the_full_ones(state: dict[str, Tensor]) -> None:
    converted = from_original(state, build("t")).state
    essential = "stages.p4.stage.aggregator.essential"
    # Entry and two of four blocks, 64 channels each.
    assert torch.equal(converted[f"{essential}.conv.weight"], state["model.6.cv2.conv.weight"][:, : 3 * 64])
    assert torch.equal(converted[f"{essential}.norm.running_mean"], state["model.6.cv2.bn.running_mean"])


def test_fine_stays_as_initialised_and_is_reported_missing(state: dict[str, Tensor]) -> None:
    network = build("t", fine=FineSettings())
    conversion = from_original(state, network)
    initial = network.state_dict()
    expected = [key for key in initial if ".fine." in key or ".high_projection." in key]
    assert "stages.fpn_p4.fine.query.weight" in expected
    assert list(conversion.missing) == expected
    assert all(torch.equal(conversion.state[key], initial[key]) for key in expected)


def test_keys_without_a_place_are_reported(state: dict[str, Tensor]) -> None:
    conversion = from_original(state | {"model.21.cv4.0.weight": torch.zeros(1)}, build("t"))
    assert conversion.unexpected == ("model.21.cv4.0.weight",)


def test_absent_batch_counts_are_reported_and_do_no_harm(state: dict[str, Tensor]) -> None:
    network = build("t")
    counts = tuple(key for key in network.state_dict() if key.endswith("num_batches_tracked"))
    conversion = from_original({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, network)
    assert conversion.missing == counts
    network.load_state_dict(conversion.state)


def test_keys_of_a_wrapped_model_are_understood(state: dict[str, Tensor]) -> None:
    conversion = from_original({f"model.{key}": value for key, value in state.items()}, build("t"))
    assert ("model.model.0.conv.weight", "stem.conv1.conv.weight") in conversion.matched
    assert conversion.unexpected == ()


def test_half_precision_becomes_single(state: dict[str, Tensor]) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    converted = from_original(half, build("t")).state
    assert torch.equal(converted["stem.conv1.conv.weight"], half["model.0.conv.weight"].float())


def test_no_two_tensors_share_memory(state: dict[str, Tensor]) -> None:
    converted = from_original(state, build("t", fine=FineSettings())).state
    assert len({tensor.untyped_storage().data_ptr() for tensor in converted.values()}) == len(converted)


def test_the_network_is_left_as_it_was(state: dict[str, Tensor]) -> None:
    network = build("t")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    converted = from_original(state, network).state
    for tensor in converted.values():
        tensor.zero_()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_checkpoint_from_before_turbo_is_refused_by_that_name(state: dict[str, Tensor]) -> None:
    old = {key.replace("attn.qk.", "attn.qkv."): value for key, value in state.items()}
    with pytest.raises(ValueError, match=r"model\.6\.m\.0\.0\.attn\.qkv\.conv\.weight.*before its turbo release"):
        from_original(old, build("t"))


def test_a_checkpoint_with_folded_norms_is_refused_by_that_reason(state: dict[str, Tensor]) -> None:
    fused = {key: value for key, value in state.items() if ".bn." not in key} | {"model.0.conv.bias": torch.zeros(16)}
    with pytest.raises(ValueError, match=r"folded into its convolutions.*before fusing"):
        from_original(fused, build("t"))


def test_a_checkpoint_of_another_size_is_refused_naming_both() -> None:
    with pytest.raises(ValueError, match=r"is a yolo-n with 6 classes; expected one of yolo-t with 6 classes"):
        from_original(original_state("n", CLASSES), build("t"))


def test_a_checkpoint_of_other_classes_is_refused_naming_both() -> None:
    with pytest.raises(ValueError, match=r"is a yolo-t with 80 classes; expected one of yolo-t with 6 classes"):
        from_original(original_state("t", 80), build("t"))


def test_a_size_that_does_not_exist_is_described(state: dict[str, Tensor]) -> None:
    wider = state | {"model.0.conv.weight": torch.zeros(24, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"24 channels in the stem, 4 blocks in layer 6.*expected one of yolo-t"):
        from_original(wider, build("t"))


def test_a_tensor_of_another_shape_is_refused_naming_both(state: dict[str, Tensor]) -> None:
    bent = state | {"model.5.conv.weight": torch.zeros(64, 128, 3, 3)}
    with pytest.raises(
        ValueError,
        match=r"model\.5\.conv\.weight .*\[64, 128, 3, 3\].*p4\.downsample\.conv\.weight of yolo-t .*\[128, 128, 3",
    ):
        from_original(bent, build("t"))


def test_a_full_aggregator_of_another_width_is_not_cut_to_fit(state: dict[str, Tensor]) -> None:
    wide = state | {"model.6.cv2.conv.weight": torch.zeros(128, 6 * 64, 1, 1)}
    with pytest.raises(ValueError, match=r"model\.6\.cv2\.conv\.weight .*\[128, 384, 1, 1\]"):
        from_original(wide, build("t"))


def test_a_checkpoint_that_lacks_tensors_is_refused_naming_the_first(state: dict[str, Tensor]) -> None:
    part = {key: value for key, value in state.items() if not key.startswith("model.17.")}
    with pytest.raises(ValueError, match=r"lacks \d+ of the \d+ tensors of yolo-t.*stages\.pan_p4\.stage"):
        from_original(part, build("t"))


def test_another_network_is_refused_with_its_first_keys() -> None:
    with pytest.raises(ValueError, match=r"no YOLOv12 turbo state dict.*backbone\.stem\.weight"):
        from_original({"backbone.stem.weight": torch.zeros(1)}, build("t"))

"""Conversion of RT-DETR's state dicts: where every tensor lands, what is reported, what is refused."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping

import pytest
import torch
from rtdetr_layouts import as_original, as_version_4
from torch import Tensor, nn

from training.bench.huggingface import random_rtdetr
from training.data.coco_names import COCO_NAMES
from training.families import build_model
from training.models.batchnorm import FrozenBatchNorm2d, SwitchableBatchNorm2d
from training.models.conversion import Conversion
from training.models.detr import SIZES, AnyDepthDetr
from training.models.detr_convert import from_huggingface, from_original, to_huggingface
from training.models.fine import FINE, FineSettings
from training.models.stage import AnyDepthSettings

ORIGINAL_DIGESTS = {
    "r18": "d276f8c2e43f41196d3684785d1b761fbb6d2c89e7c82550cea5b55040928d71",
    "r34": "c4ca31c65187e955360d39c31e583ca8a8f34c4b9d4a80ffa9c4a785d4583924",
    "r50": "d9b0e667007c24e2d610f82c4e7844c77f50d9e2afc49909ba74b59311fc30f0",
    "r101": "d2873aec17736e4e76cabb2363a43df2e9d0c1971429b997ba84c18ff73a60b4",
}
"""Of the keys and shapes of the networks that the original's own code builds (rtdetr_pytorch, 80 classes)."""

VERSION_4_DIGESTS = {
    "r18": "b4c2cdd57a3fcd4958bba6ad9c4fe9d83de63391208a2b9aba3d658eeb01b2ee",
    "r50": "04a95beddb28a1b4d93f87d9732d70ac9fca37e7559530dc01fa16750efa4a43",
}
"""The same of the networks that transformers 4.57.6 builds."""


@functools.cache
def huggingface_state(size: str) -> dict[str, Tensor]:
    return random_rtdetr(size, seed=0).state_dict()


@pytest.fixture(scope="module", autouse=True)
def _forget_networks() -> Iterator[None]:
    """Gives the memory of all sizes back before other modules run."""
    yield
    huggingface_state.cache_clear()
    converted_with_fine.cache_clear()


def digest(state: Mapping[str, Tensor]) -> str:
    lines = sorted(f"{key} {list(tensor.shape)}" for key, tensor in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def network(
    size: str, *, num_classes: int = len(COCO_NAMES), fine: FineSettings | None = None, any_depth: bool = False
) -> AnyDepthDetr:
    model = build_model(f"detr-{size}", num_classes, fine=fine, any_depth=AnyDepthSettings(any_depth))
    assert isinstance(model, AnyDepthDetr)
    return model


def assert_same_tensors(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    different = [key for key in expected if not torch.equal(actual[key], expected[key])]
    assert not different


@pytest.mark.parametrize("size", ORIGINAL_DIGESTS)
def test_the_original_layout_of_these_tests_is_that_of_its_code(size: str) -> None:
    assert digest(as_original(huggingface_state(size))) == ORIGINAL_DIGESTS[size]


@pytest.mark.parametrize("size", VERSION_4_DIGESTS)
def test_the_version_4_layout_of_these_tests_is_that_of_its_code(size: str) -> None:
    assert digest(as_version_4(huggingface_state(size))) == VERSION_4_DIGESTS[size]


@pytest.mark.parametrize("size", SIZES)
def test_the_original_lands_where_hugging_faces_does(size: str) -> None:
    state, model = huggingface_state(size), network(size)
    assert_same_tensors(from_original(as_original(state), model).state, from_huggingface(state, model).state)


@pytest.mark.parametrize("size", SIZES)
def test_version_4_lands_where_version_5_does(size: str) -> None:
    state, model = huggingface_state(size), network(size)
    assert_same_tensors(from_huggingface(as_version_4(state), model).state, from_huggingface(state, model).state)


def test_a_saved_file_of_version_4_has_its_heads_once_under_either_name() -> None:
    state, model = huggingface_state("r18"), network("r18")
    short = {key: tensor for key, tensor in as_version_4(state).items() if not key.startswith("model.decoder.class_")}
    assert_same_tensors(from_huggingface(short, model).state, from_huggingface(state, model).state)


def test_the_second_name_of_a_head_is_not_unexpected() -> None:
    assert from_huggingface(as_version_4(huggingface_state("r18")), network("r18")).unexpected == ()


def test_heads_that_differ_under_their_two_names_are_refused() -> None:
    state = as_version_4(huggingface_state("r18"))
    state["class_embed.0.bias"] = state["class_embed.0.bias"] + 1
    with pytest.raises(ValueError, match=r"class_embed\.0\.bias are two names of one tensor"):
        from_huggingface(state, network("r18"))


@pytest.mark.parametrize("size", SIZES)
def test_hugging_faces_weights_come_back_bit_for_bit(size: str) -> None:
    state, model = huggingface_state(size), network(size)
    model.load_state_dict(from_huggingface(state, model).state)
    assert_same_tensors(to_huggingface(model).state, state)


@pytest.mark.parametrize("size", SIZES)
def test_our_weights_come_back_bit_for_bit(size: str) -> None:
    model = network(size)
    frozen = {
        f"{name}.num_batches_tracked"
        for name, module in model.named_modules()
        if isinstance(module, FrozenBatchNorm2d)
    }
    for index, (key, tensor) in enumerate(model.state_dict().items()):
        if key not in frozen:  # a frozen norm counts no batches
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)) * 100)
    assert_same_tensors(from_huggingface(to_huggingface(model).state, network(size)).state, model.state_dict())


@pytest.mark.parametrize("size", SIZES)
def test_every_tensor_is_matched_but_the_counts_of_frozen_norms(size: str) -> None:
    conversion = from_huggingface(huggingface_state(size), network(size))
    assert conversion.unexpected == ()
    assert all(key.endswith(".num_batches_tracked") for key in conversion.missing)
    assert len(conversion.matched) == len(huggingface_state(size))
    assert bool(conversion.missing) == SIZES[size].backbone.frozen


@pytest.mark.parametrize("size", ["r18", "r50"])
def test_essential_norms_start_as_copies_of_the_full_ones(size: str) -> None:
    model = network(size, any_depth=True)
    model.load_state_dict(from_original(as_original(huggingface_state(size)), model).state)
    switchable = [module for module in model.modules() if isinstance(module, SwitchableBatchNorm2d)]
    assert switchable
    for module in switchable:
        assert_same_tensors(module.essential.state_dict(), module.full.state_dict())
        assert module.essential.weight.data_ptr() != module.full.weight.data_ptr()


@functools.cache
def converted_with_fine() -> tuple[AnyDepthDetr, Conversion]:
    model = network("r18", fine=FineSettings(), any_depth=True)
    return model, from_huggingface(huggingface_state("r18"), model)


def test_fine_keeps_its_initial_weights() -> None:
    model, conversion = converted_with_fine()
    for key, tensor in model.state_dict().items():
        if ".fine." in key:
            assert torch.equal(conversion.state[key], tensor), key


def test_what_is_missing_is_fine() -> None:
    model, conversion = converted_with_fine()
    assert conversion.missing == tuple(key for key in model.state_dict() if ".fine." in key)


def test_a_key_without_a_place_is_reported() -> None:
    state = {**huggingface_state("r18"), "model.weight_embedding.weight": torch.zeros(300, 256)}
    assert from_huggingface(state, network("r18")).unexpected == ("model.weight_embedding.weight",)


def test_the_denoising_embedding_may_be_missing() -> None:
    state = dict(huggingface_state("r18"))
    del state["model.denoising_class_embed.weight"]
    assert from_huggingface(state, network("r18")).missing == ("decoder.denoising_embedding.weight",)


def test_a_state_that_lacks_a_weight_is_refused_by_name() -> None:
    state = as_original(huggingface_state("r18"))
    del state["encoder.lateral_convs.1.conv.weight"]
    with pytest.raises(ValueError, match=r"lacks 1 of the 549 tensors of detr-r18.*stages\.fpn_p4\.lateral\.conv"):
        from_original(state, network("r18"))


def test_a_tensor_of_another_shape_is_refused_by_name() -> None:
    state = as_original(huggingface_state("r18"))
    state["decoder.denoising_class_embed.weight"] = torch.zeros(80, 256)
    with pytest.raises(ValueError, match=r"decoder\.denoising_class_embed\.weight .*\[80, 256\].*\[81, 256\]"):
        from_original(state, network("r18"))


@pytest.mark.parametrize(("given", "expected"), [("r18", "r34"), ("r34", "r50"), ("r50", "r18")])
def test_another_size_is_refused_naming_both(given: str, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"is a detr-{given} .* expected one of detr-{expected} "):
        from_huggingface(huggingface_state(given), network(expected))


def test_another_number_of_classes_is_refused_naming_both() -> None:
    with pytest.raises(ValueError, match="with 80 classes; expected one of detr-r18 with 4 classes"):
        from_huggingface(huggingface_state("r18"), network("r18", num_classes=4))


def test_a_size_that_is_not_ours_is_described() -> None:
    """RT-DETR R50-m, published as well: R50 with an expansion of 0.5."""
    state = dict(huggingface_state("r50"))
    key = "model.encoder.fpn_blocks.0.conv1.conv.weight"
    state[key] = state[key][:128]
    with pytest.raises(ValueError, match=r"3\+4\+6\+3 bottlenecks, width 256, .* expansion 0\.5, 6 decoder layers"):
        from_huggingface(state, network("r50"))


def test_a_state_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no state dict of Hugging Face's RTDetr.*backbone\.conv1\.conv1_1"):
        from_huggingface(as_original(huggingface_state("r18")), network("r18"))


def test_a_network_with_a_fine_that_does_nothing_yet_converts_to_hugging_faces() -> None:
    model = network("r18", fine=FineSettings(), any_depth=True)
    model.load_state_dict(from_huggingface(huggingface_state("r18"), model).state)
    conversion = to_huggingface(model)
    assert_same_tensors(conversion.state, huggingface_state("r18"))
    assert conversion.unexpected == tuple(
        key for key in model.state_dict() if ".fine." in key or ".essential." in key
    )


def test_a_trained_fine_has_no_place_at_hugging_face() -> None:
    model = network("r18", fine=FineSettings())
    for module in model.modules():
        if isinstance(module, FINE):
            nn.init.ones_(module.feed_forward[-1].bias)
    with pytest.raises(ValueError, match=r"stages\.fpn_p4\.fine of the detr-r18 is trained"):
        to_huggingface(model)

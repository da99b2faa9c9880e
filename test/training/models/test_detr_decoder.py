"""RT-DETR's decoder: attention, layers and exits while training, and denoising that leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_weights import randomise_everything
from torch import Tensor, nn
from torch.nn import functional as F

from training.families import build_model
from training.models.attention import MultiHeadAttention, MultiLayerPerceptron
from training.models.decoder import CHANNELS, Decoder, DecoderLayer
from training.models.denoising import denoising_queries
from training.models.detr import AnyDepthDetr
from training.models.targets import Targets, pad_targets

CLASSES = 6


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """Three layers, in double precision, norms in evaluation mode but with the outputs of training."""
    torch.manual_seed(0)
    module = Decoder([32, 48, 64], CLASSES, 3).double().eval()
    randomise_everything(module)
    module.training = True
    return module


@pytest.fixture(scope="module")
def features() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, c, 12 // s, 20 // s, dtype=torch.float64) for c, s in ((32, 1), (48, 2), (64, 4))]


@pytest.fixture(scope="module")
def model() -> AnyDepthDetr:
    torch.manual_seed(0)
    network = build_model("detr-r18", CLASSES)
    randomise_everything(network)
    return network


def noisy(seed: int, counts: tuple[int, int] = (3, 1)) -> Any:
    torch.manual_seed(seed)
    labels = [torch.randint(CLASSES, (count,)) for count in counts]
    boxes = [torch.rand(count, 4, dtype=torch.float64) * 0.5 + 0.2 for count in counts]
    return denoising_queries(labels, boxes, CLASSES)


def flat(outputs: dict[str, Any]) -> list[Tensor]:
    layers = [*outputs["layers"], outputs["encoder"], outputs]
    return [layer[name] for layer in layers for name in ("logits", "boxes_cxcywh")]


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_that_of_torch(masked: bool) -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(32, 4).double()
    randomise_everything(ours)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True).double()
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    query, key, value = (torch.randn(2, n, 32, dtype=torch.float64) for n in (5, 7, 7))
    allowed = torch.rand(5, 7) < 0.6
    allowed[:, 0] = True
    mask = allowed if masked else None
    expected, _ = theirs(query, key, value, attn_mask=None if mask is None else ~mask)
    assert torch.allclose(ours(query, key, value, mask), expected, atol=1e-12)


@torch.no_grad()
def test_perceptron_has_relu_between_its_layers_only() -> None:
    module = MultiLayerPerceptron(3, 8, 4, 3)
    first, second, third = module.layers
    x = torch.randn(10, 3)
    assert torch.equal(module(x), third(torch.relu(second(torch.relu(first(x))))))
    assert [tuple(layer.weight.shape) for layer in module.layers] == [(8, 3), (8, 8), (4, 8)]


@torch.no_grad()
def test_layer_is_post_norm_with_positions_on_queries_and_keys_alone() -> None:
    torch.manual_seed(0)
    layer = DecoderLayer().double()
    randomise_everything(layer)
    sizes = [(4, 5), (2, 3), (1, 2)]
    x, position = torch.randn(2, 2, 9, CHANNELS, dtype=torch.float64)
    boxes, memory = torch.rand(2, 9, 4).double(), torch.randn(2, 28, CHANNELS, dtype=torch.float64)
    placed = x + position
    y = F.layer_norm(x + layer.self_attention(placed, placed, x), [256], layer.norm1.weight, layer.norm1.bias)
    sampled = layer.cross_attention(y + position, boxes, memory, sizes)
    y = F.layer_norm(y + sampled, [256], layer.norm2.weight, layer.norm2.bias)
    hidden = torch.relu(y @ layer.linear1.weight.T + layer.linear1.bias)
    y = y + hidden @ layer.linear2.weight.T + layer.linear2.bias
    expected = F.layer_norm(y, [256], layer.norm3.weight, layer.norm3.bias)
    assert torch.allclose(layer(x, position, boxes, memory, sizes), expected, atol=1e-10)


@torch.no_grad()
def test_boxes_are_refined_from_layer_to_layer(decoder: Decoder, features: list[Tensor]) -> None:
    outputs = decoder(features, 3)
    memory, sizes = decoder.memory(features)
    selected = decoder.selection(memory, sizes)
    x, boxes = selected.content, selected.boxes
    for index in range(3):
        position = decoder.query_position(boxes)
        x = decoder.layers[index](x, position, boxes, memory, sizes)
        reference = boxes.clamp(1e-5, 1 - 1e-5)
        boxes = torch.sigmoid(decoder.box[index](x) + torch.log(reference / (1 - reference)))
        layer = outputs["layers"][index]
        assert torch.allclose(layer["boxes_cxcywh"], boxes, atol=1e-9)
        assert torch.allclose(layer["logits"], decoder.score[index](x), atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("exit_index", [1, 2, 3])
def test_training_puts_out_every_layer_up_to_the_exit_as_that_exit_would(
    decoder: Decoder, features: list[Tensor], exit_index: int
) -> None:
    layers = decoder(features, exit_index)["layers"]
    assert len(layers) == exit_index
    decoder.training = False
    try:
        read = [decoder(features, index + 1) for index in range(exit_index)]
    finally:
        decoder.training = True
    for layer, expected in zip(layers, read, strict=True):
        assert torch.allclose(layer["logits"], expected["logits"], atol=1e-12)
        assert torch.allclose(layer["boxes_cxcywh"], expected["boxes_cxcywh"], atol=1e-12)


@torch.no_grad()
def test_the_last_layer_is_the_output_of_training(decoder: Decoder, features: list[Tensor]) -> None:
    outputs = decoder(features, 2)
    assert outputs["logits"] is outputs["layers"][1]["logits"]
    assert outputs["boxes_cxcywh"] is outputs["layers"][1]["boxes_cxcywh"]


@torch.no_grad()
def test_denoising_queries_never_change_the_matching_queries(decoder: Decoder, features: list[Tensor]) -> None:
    without = flat(decoder(features, 3))
    for seed, counts in ((0, (3, 1)), (1, (3, 1)), (2, (1, 5))):
        with_denoising = flat(decoder(features, 3, noisy(seed, counts)))
        for ours, expected in zip(with_denoising, without, strict=True):
            assert torch.allclose(ours, expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_denoising_groups_never_change_one_another(decoder: Decoder, features: list[Tensor]) -> None:
    first, other = noisy(0), noisy(1)
    size = first.labels.shape[1] // first.num_groups
    other.labels[:, :size], other.boxes[:, :size] = first.labels[:, :size], first.boxes[:, :size]
    ours, theirs = (decoder(features, 3, queries)["denoising_layers"] for queries in (first, other))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a["logits"][:, :size], b["logits"][:, :size], rtol=0, atol=1e-10)
        assert not torch.allclose(a["logits"][:, size:], b["logits"][:, size:], rtol=0, atol=1e-3)


@torch.no_grad()
def test_denoising_queries_are_put_out_per_layer_and_apart(decoder: Decoder, features: list[Tensor]) -> None:
    queries = noisy(0)
    outputs = decoder(features, 2, queries)
    assert len(outputs["denoising_layers"]) == 2
    number = queries.labels.shape[1]
    for layer in outputs["denoising_layers"]:
        assert layer["logits"].shape == (2, number, CLASSES)
        assert layer["boxes_cxcywh"].shape == (2, number, 4)
    for layer in outputs["layers"]:
        assert layer["logits"].shape == (2, 300, CLASSES)


@torch.no_grad()
def test_denoising_boxes_start_from_the_noisy_ones() -> None:
    torch.manual_seed(0)
    decoder = Decoder([32, 48, 64], CLASSES, 1).double().train()  # last layers of box heads are zero: no offset
    levels = [torch.randn(2, c, 4, 4, dtype=torch.float64) for c in (32, 48, 64)]
    queries = noisy(0)
    found = decoder(levels, 1, queries)["denoising_layers"][0]["boxes_cxcywh"]
    assert torch.allclose(found, queries.boxes.clamp(1e-5, 1 - 1e-5), atol=2e-5)


def three_objects() -> Targets:
    boxes = [torch.tensor([[8.0, 16, 40, 60], [30, 4, 90, 50]]), torch.tensor([[10.0, 10, 50, 30]])]
    labels = [torch.tensor([1, 4]), torch.tensor([2])]
    return pad_targets(boxes, labels, [torch.zeros(0, 4)] * 2)


@torch.no_grad()
def test_network_makes_its_noisy_queries_from_the_targets(model: AnyDepthDetr) -> None:
    queries = model.train()(torch.rand(2, 3, 64, 96), None, three_objects())["denoising"]
    # Centre and size in [0, 1] of an image 96 wide and 64 high.
    clean = torch.tensor([[24 / 96, 38 / 64, 32 / 96, 44 / 64], [60 / 96, 27 / 64, 60 / 96, 46 / 64]])
    restored = clean[queries.assigned[0]]
    noise = (queries.boxes[0, queries.positives[0], :2] - restored[:, :2]).abs()
    assert (noise <= restored[:, 2:] / 2 + 1e-6).all()
    labels = torch.tensor([1, 4])[queries.assigned[0]]
    assert (queries.labels[0, queries.positives[0]] == labels).float().mean() > 0.6
    assert len(queries.positives[1]) == queries.num_groups == 50


@torch.no_grad()
def test_training_without_objects_or_targets_has_no_denoising(model: AnyDepthDetr) -> None:
    images = torch.rand(2, 3, 64, 64)
    empty = pad_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2, [torch.zeros(0, 4)] * 2)
    for outputs in (model.train()(images), model(images, None, empty)):
        assert "denoising" not in outputs
        assert "denoising_layers" not in outputs


@torch.no_grad()
def test_targets_are_not_looked_at_in_evaluation(model: AnyDepthDetr) -> None:
    outputs = model.eval()(torch.rand(2, 3, 64, 96), None, three_objects())
    assert set(outputs) == {"logits", "boxes", "boxes_cxcywh"}

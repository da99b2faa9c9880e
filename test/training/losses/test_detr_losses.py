"""The DETR loss against Hugging Face's, and its matching against all permutations."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_rt_detr import RTDetrLoss

from training.families import build_model
from training.losses.detr import DetrLoss
from training.losses.matcher import HungarianMatcher
from training.models.boxes import cxcywh_to_xyxy
from training.models.denoising import denoising_queries
from training.models.targets import Targets, pad_targets

IMAGE_SIZE = (96, 160)
NUM_CLASSES = 5
QUERIES = 12


def random_boxes(*shape: int) -> Tensor:
    """Boxes cxcywh inside the image."""
    centre = torch.rand(*shape, 2) * 0.6 + 0.2
    return torch.cat([centre, torch.rand(*shape, 2) * 0.3 + 0.05], dim=-1)


def predictions(batch: int, queries: int = QUERIES) -> dict[str, Tensor]:
    return {"logits": torch.randn(batch, queries, NUM_CLASSES), "boxes_cxcywh": random_boxes(batch, queries)}


def make_targets(counts: list[int], ignored: list[Tensor] | None = None) -> tuple[Targets, list[dict[str, Tensor]]]:
    """Objects of a batch, for us in pixels and for Hugging Face in shares of the image."""
    height, width = IMAGE_SIZE
    scale = torch.tensor([width, height] * 2)
    labels = [torch.randint(NUM_CLASSES, (count,)) for count in counts]
    boxes = [random_boxes(count) for count in counts]
    pixels = [cxcywh_to_xyxy(b) * scale for b in boxes]
    ours = pad_targets(pixels, labels, ignored or [torch.zeros(0, 4)] * len(counts))
    return ours, [{"class_labels": c, "boxes": b} for c, b in zip(labels, boxes, strict=True)]


def huggingface_loss() -> RTDetrLoss:
    return RTDetrLoss(
        SimpleNamespace(
            num_labels=NUM_CLASSES,
            matcher_class_cost=2.0,
            matcher_bbox_cost=5.0,
            matcher_giou_cost=2.0,
            use_focal_loss=True,
            matcher_alpha=0.25,
            matcher_gamma=2.0,
            weight_loss_vfl=1.0,
            weight_loss_bbox=5.0,
            weight_loss_giou=2.0,
            eos_coefficient=1e-4,
            focal_loss_alpha=0.75,
            focal_loss_gamma=2.0,
        )
    )


def renamed(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"logits": outputs["logits"], "pred_boxes": outputs["boxes_cxcywh"]}


def sums(terms: dict[str, Tensor], suffix: str) -> dict[str, Tensor]:
    """Hugging Face's terms with a suffix and any number, added up by name."""
    names = {"class": "loss_vfl", "l1": "loss_bbox", "giou": "loss_giou"}
    return {
        ours: torch.stack([v for k, v in terms.items() if k.startswith(f"{theirs}{suffix}")]).sum()
        for ours, theirs in names.items()
    }


@pytest.mark.parametrize("counts", [[3, 5], [0, 4], [0, 0], [7]])
def test_every_term_equals_hugging_faces(counts: list[int]) -> None:
    torch.manual_seed(len(counts) + sum(counts))
    targets, theirs = make_targets(counts)
    batch = len(counts)
    layers, encoder = [predictions(batch) for _ in range(3)], predictions(batch)
    boxes = [item["boxes"] for item in theirs]
    noisy = denoising_queries([item["class_labels"] for item in theirs], boxes, NUM_CLASSES, num_denoising=20)
    outputs = {**layers[-1], "layers": layers, "encoder": encoder}
    expected_outputs = {
        **renamed(layers[-1]), "auxiliary_outputs": [renamed(part) for part in (*layers[:-1], encoder)]
    }
    if noisy is not None:
        denoised = [predictions(batch, noisy.labels.shape[1]) for _ in range(3)]
        outputs |= {"denoising": noisy, "denoising_layers": denoised}
        expected_outputs |= {
            "dn_auxiliary_outputs": [renamed(part) for part in denoised],
            "denoising_meta_values": {
                "dn_positive_idx": noisy.positives,
                "dn_num_group": noisy.num_groups,
                "dn_num_split": [noisy.labels.shape[1], QUERIES],
            },
        }

    terms, _ = DetrLoss()(outputs, targets, IMAGE_SIZE)
    expected = huggingface_loss()(expected_outputs, theirs)

    for name in ("class", "l1", "giou"):
        main = {"class": "loss_vfl", "l1": "loss_bbox", "giou": "loss_giou"}[name]
        torch.testing.assert_close(terms[name], expected[main], rtol=1e-5, atol=1e-5)
        auxiliary = terms[f"auxiliary_{name}"] + terms[f"encoder_{name}"]
        torch.testing.assert_close(auxiliary, sums(expected, "_aux_")[name], rtol=1e-5, atol=1e-5)
        if noisy is not None:
            torch.testing.assert_close(
                terms[f"denoising_{name}"], sums(expected, "_dn_")[name], rtol=1e-5, atol=1e-5
            )
        else:
            assert terms[f"denoising_{name}"] == 0.0


def test_matching_is_the_cheapest_of_all_permutations() -> None:
    torch.manual_seed(3)
    matcher = HungarianMatcher()
    targets, theirs = make_targets([3])
    outputs = predictions(1, queries=5)

    (match,) = matcher(outputs, theirs[0]["boxes"][None], targets)

    cost = matcher.cost(outputs["logits"][0], outputs["boxes_cxcywh"][0], targets.labels[0], theirs[0]["boxes"])
    cheapest = min(
        itertools.permutations(range(5), 3), key=lambda queries: sum(cost[q, o].item() for o, q in enumerate(queries))
    )
    assert match.objects.tolist() == [0, 1, 2]
    assert match.queries.tolist() == list(cheapest)


def test_matching_refuses_predictions_that_are_not_finite() -> None:
    targets, theirs = make_targets([2])
    outputs = predictions(1)
    outputs["boxes_cxcywh"][0, 3, 2] = torch.nan
    with pytest.raises(ValueError, match="image 0 of the batch are not finite"):
        HungarianMatcher()(outputs, theirs[0]["boxes"][None], targets)


def test_unmatched_queries_in_an_ignored_region_cost_nothing() -> None:
    torch.manual_seed(0)
    everywhere = torch.tensor([[0.0, 0.0, IMAGE_SIZE[1], IMAGE_SIZE[0]]])
    targets, _ = make_targets([0], ignored=[everywhere])
    layers = [predictions(1)]
    terms, _ = DetrLoss()({"layers": layers, "encoder": predictions(1)}, targets, IMAGE_SIZE)
    assert terms["class"].item() == 0.0


def test_a_training_step_of_the_network_gives_every_term_a_gradient() -> None:
    torch.manual_seed(0)
    model = build_model("detr-r18", NUM_CLASSES).train()
    targets, _ = make_targets([2, 3])
    outputs = model(torch.rand(2, 3, *IMAGE_SIZE), None, targets)
    terms, _ = DetrLoss()(outputs, targets, IMAGE_SIZE)
    torch.stack(list(terms.values())).sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert len(terms) == 12
    assert all("essential" in name for name in without)

"""Analyses: CKA, receptive fields and error counts against definitions and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from spaces import STAGES

from anydepth_perception.detection.detector import Detections
from training.analysis.cka import BY_NETWORK, BY_STAGE, LinearCka, boundary_cka
from training.analysis.errors import ErrorCounts, count_detections, count_errors, match, suppressed
from training.analysis.receptive_field import growth, receptive_fields, spread, token_alignment
from training.analysis.tables import error_table
from training.evaluation.coco import ImageResult
from training.evaluation.images import Truth
from training.families import build_model
from training.models.stage import AnyDepthSettings, split_of


def cka_by_gram_matrices(x: torch.Tensor, y: torch.Tensor) -> float:
    """The definition: HSIC of the two centred Gram matrices of linear kernels, normalised."""
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = (centring @ (z.double() @ z.double().T) @ centring for z in (x, y))
    return float((k * m).sum() / (k.norm() * m.norm()))


def cka_of(x: torch.Tensor, y: torch.Tensor, batches: int = 1) -> float:
    cka = LinearCka()
    for a, b in zip(x.chunk(batches), y.chunk(batches), strict=True):
        cka.update(a, b)
    return cka.value()


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two representations, of 5 and 7 channels and far from zero, with something in common."""
    torch.manual_seed(0)
    x = torch.randn(60, 5) + 40
    return x, torch.cat([x[:, :3] @ torch.randn(3, 4), torch.randn(60, 3)], dim=1) - 7


@pytest.mark.parametrize("batches", [1, 6])
def test_cka_is_that_of_the_gram_matrices_however_it_is_fed(
    batches: int, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    expected = cka_by_gram_matrices(*pair)
    assert 0.1 < expected < 0.9
    assert cka_of(*pair, batches=batches) == pytest.approx(expected, abs=1e-9)


def test_cka_sees_through_rotation_scaling_and_shift() -> None:
    torch.manual_seed(1)
    x = torch.randn(50, 6)
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    assert cka_of(x, 3 * x @ rotation + 5) == pytest.approx(1.0, abs=1e-6)


def test_cka_of_what_does_not_vary_is_no_number() -> None:
    assert math.isnan(cka_of(torch.ones(5, 2), torch.randn(5, 2)))


@pytest.mark.parametrize("any_depth", [True, False], ids=["any depth", "static, split after the fact"])
def test_boundaries_differ_where_paths_differ_and_more_behind_other_boundaries(any_depth: bool) -> None:
    torch.manual_seed(0)
    model = build_model("yolo-n", 3, any_depth=AnyDepthSettings(any_depth)).eval()
    values = boundary_cka(model, [torch.rand(1, 3, 96, 96) for _ in range(2)])
    skippable = {name for name in STAGES if split_of(model.stages[name]).skippable}
    assert skippable == {"p4", "p5"}
    for name in STAGES:
        if name not in skippable:
            assert values[BY_STAGE][name] == pytest.approx(1.0, abs=1e-6)
    assert values[BY_STAGE]["p4"] < 0.9999
    assert values[BY_NETWORK]["p4"] == pytest.approx(values[BY_STAGE]["p4"])
    assert values[BY_NETWORK]["pan_p4"] < 0.9999, "what the stages before it did is part of it"


def test_spread_of_a_gaussian_is_its_sigma_and_its_median_distance() -> None:
    rows, columns = torch.meshgrid(torch.arange(101.0), torch.arange(121.0), indexing="ij")
    gradient = torch.exp(-((rows - 47) ** 2 + (columns - 60) ** 2) / (2 * 9.0**2))
    sigma, half_radius = spread(gradient)
    assert sigma == pytest.approx(9.0, rel=1e-3)
    assert half_radius == pytest.approx(9.0 * math.sqrt(2 * math.log(2)), rel=0.02)


def test_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="zero everywhere"):
        spread(torch.zeros(3, 3))


def test_receptive_fields_grow_and_lie_inside_the_theoretical_ones() -> None:
    torch.manual_seed(0)
    model = build_model("yolo-t", 3).eval()
    fields = receptive_fields(model, [torch.rand(1, 3, 160, 160)], pools=(1, 2))
    assert fields["p2", 1].sigma < fields["p3", 1].sigma < fields["p4", 1].sigma
    assert fields["p2", 1].sigma < fields["p2", 2].sigma, "a token of 2 x 2 cells sees more than one cell"
    # The cell lies at pixel 80; p2 sees 4 convolutions of 3 x 3 at strides 2, 4, 4 (and a C3k's): not 60 pixels away.
    assert fields["p2", 1].gradient[:, 145:].sum() == 0
    assert fields["p2", 1].gradient[78:84, 78:84].sum() > 0
    ratios = growth(fields)
    assert ratios["p2-p3"]["sigma"] == pytest.approx(fields["p3", 1].sigma / fields["p2", 1].sigma)
    tokens = token_alignment(fields, (1, 2))
    assert tokens["p3-p4"]["2"] < tokens["p3-p4"]["1"] == pytest.approx(ratios["p3-p4"]["half_radius"])


def truth_of(*boxes: tuple[float, float, float, float, int], crowd: int = 0) -> Truth:
    """Objects as (left, top, width, height, class); the last `crowd` of them are crowds."""
    array = np.array(boxes, float).reshape(-1, 5)
    return Truth(
        1,
        200,
        200,
        array[:, :4],
        array[:, 4].astype(np.int64),
        array[:, 2] * array[:, 3],
        np.arange(len(array)) >= len(array) - crowd,
    )


def found_of(*boxes: tuple[float, float, float, float, int, float]) -> Detections:
    """Detections as (left, top, width, height, class, score)."""
    array = np.array(boxes, np.float32).reshape(-1, 6)
    corners = np.concatenate([array[:, :2], array[:, :2] + array[:, 2:4]], axis=1)
    return Detections(corners, array[:, 5], array[:, 4].astype(np.int32))


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((11, 10, 40, 40, 0, 0.6), "duplicate"),
        ((100, 102, 30, 30, 0, 0.8), "class"),
        ((10, 35, 40, 40, 0, 0.8), "place"),
        ((150, 10, 20, 20, 0, 0.8), "background"),
    ],
)
def test_kinds_of_false_positives(detection: tuple[float, float, float, float, int, float], kind: str) -> None:
    truth = truth_of((10, 10, 40, 40, 0), (100, 100, 30, 30, 1))
    good = (10, 10, 40, 40, 0, 0.9)
    assert match(truth, found_of(good, detection), 0.5, 0.5) == (1, [kind])


def test_better_scored_detection_takes_the_object_and_one_below_the_threshold_counts_nowhere() -> None:
    truth = truth_of((10, 10, 40, 40, 0))
    detections = found_of((12, 10, 40, 40, 0, 0.6), (10, 10, 40, 40, 0, 0.49), (14, 10, 40, 40, 0, 0.7))
    assert match(truth, detections, 0.5, 0.5) == (1, ["duplicate"])


def test_what_lies_in_a_crowd_of_its_class_is_no_error_and_the_crowd_is_not_missed() -> None:
    truth = truth_of((10, 10, 40, 40, 0), (80, 80, 100, 100, 0), crowd=1)
    detections = found_of((90, 90, 20, 20, 0, 0.9), (120, 120, 20, 20, 1, 0.9))
    result = {1: ImageResult(truth, {"full": detections})}
    counts = count_errors(result, "full")
    assert (counts.true_positives, counts.false_positives, counts.false_negatives) == (0, 1, 1)
    assert counts.kinds == {"background": 1}


def test_table_has_the_figures_of_the_paper() -> None:
    text = error_table(
        {"w/o FINE": ErrorCounts(5000, 23_833, 21_557, 12_502), "w/ FINE": ErrorCounts(5000, 24_186, 19_417, 12_149)}
    )
    assert "| w/o FINE | 5,000 | 23,833 | 21,557 | 12,502 | 0.525 | 0.656 | 0.583 |" in text
    assert "| w/ FINE | 5,000 | 24,186 | 19,417 | 12,149 | 0.555 | 0.666 | 0.605 |" in text
    assert "| change |  | +1.48 % | -9.93 % | -2.82 % |" in text


def test_suppression_removes_overlapping_queries_of_one_class_only() -> None:
    detections = found_of(
        (10, 10, 40, 40, 0, 0.9), (11, 10, 40, 40, 0, 0.8), (11, 10, 40, 40, 1, 0.7), (11, 11, 40, 40, 0, 0.1)
    )
    results = {1: ImageResult(truth_of(), {"d1": detections})}
    kept = suppressed(results, 0.7)
    assert kept[1].detections["d1"].class_ids.tolist() == [0, 1]
    assert count_detections(results, "d1", 0.5) - count_detections(kept, "d1", 0.5) == 1

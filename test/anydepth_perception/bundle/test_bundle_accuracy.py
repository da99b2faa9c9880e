"""Cost and accuracy of configurations: from the table where they are there, else estimated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import EIGHT

from anydepth_perception.bundle import Bundle, parse_manifest
from anydepth_perception.depth.space import DepthConfig

FULL, BASE = EIGHT.full, EIGHT.base


def single(index: int, *, full: bool) -> DepthConfig:
    """The base-net with stage `index` full, or the super-net with it essential."""
    return DepthConfig(tuple((position == index) == full for position in range(8)))


def with_table(tiny_bundle_path: Path, table: dict[DepthConfig, float]) -> Bundle:
    document: dict[str, Any] = json.loads((tiny_bundle_path / "manifest.json").read_text())
    document["accuracy"]["configurations"] = {str(c): {"AP": ap, "measured": True} for c, ap in table.items()}
    return Bundle(tiny_bundle_path, parse_manifest(document, "manifest.json"), "0" * 64)


def test_gflops_add_up(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    assert bundle.gflops(BASE) == pytest.approx(0.010)
    assert bundle.gflops(FULL) == pytest.approx(0.018)
    assert bundle.gflops(single(3, full=True)) == pytest.approx(0.011)


def test_listed_configuration_has_the_figure_of_the_table(tiny_bundle_path: Path) -> None:
    bundle = with_table(tiny_bundle_path, {FULL: 0.5, BASE: 0.4, single(2, full=True): 0.47})
    assert bundle.average_precision(single(2, full=True)) == 0.47
    assert bundle.is_measured(single(2, full=True))
    assert not bundle.is_measured(single(3, full=True))


def test_without_singles_the_estimate_follows_the_gflops(tiny_bundle_path: Path) -> None:
    bundle = with_table(tiny_bundle_path, {FULL: 0.5, BASE: 0.4})
    assert bundle.average_precision(DepthConfig.parse("FFFF.EEEE")) == pytest.approx(0.45)


@pytest.mark.parametrize("full", [True, False], ids=["added to base", "taken from full"])
def test_with_singles_the_estimate_adds_their_gains_scaled_to_full(tiny_bundle_path: Path, full: bool) -> None:
    gains = [0.04, 0.02, 0.02, 0.0, 0.04, 0.02, 0.02, -0.01]  # the harmful one counts as 0; the rest adds to 0.16
    start, sign = (0.4, 1) if full else (0.48, -1)
    singles = {single(index, full=full): start + sign * gain for index, gain in enumerate(gains)}
    bundle = with_table(tiny_bundle_path, {FULL: 0.48, BASE: 0.4, **singles})
    assert bundle.average_precision(DepthConfig.parse("FFEE.EEEE")) == pytest.approx(0.4 + 0.06 / 2)
    assert bundle.average_precision(DepthConfig.parse("EEEE.FFFF")) == pytest.approx(0.4 + 0.08 / 2)
    assert bundle.average_precision(DepthConfig.parse("FFFF.FFFE")) == pytest.approx(0.48, abs=0.011)


def test_fitted_estimate_takes_the_place_of_the_sum_of_singles(tiny_bundle_path: Path) -> None:
    document: dict[str, Any] = json.loads((tiny_bundle_path / "manifest.json").read_text())
    measured = {FULL: 0.5, BASE: 0.4, **{single(index, full=True): 0.42 for index in range(8)}}
    document["accuracy"]["configurations"] = {str(c): {"AP": ap, "measured": True} for c, ap in measured.items()}
    document["accuracy"]["estimate"] = {
        "num_held_out": 30,
        "mean_absolute_error": 0.002,
        "intercept": 0.4,
        "terms": {"p2": 0.03, "p3": 0.01, "p2 p3": -0.02, "p4 pan_p5": 0.7},
    }
    bundle = Bundle(tiny_bundle_path, parse_manifest(document, "manifest.json"), "0" * 64)
    assert bundle.average_precision(DepthConfig.parse("FFEE.EEEE")) == pytest.approx(0.42)
    assert bundle.average_precision(DepthConfig.parse("EFFE.EEEE")) == pytest.approx(0.41)
    assert bundle.average_precision(DepthConfig.parse("EEFE.EEEF")) == 1.0, "an AP is at most 1"
    assert bundle.average_precision(single(0, full=True)) == 0.42, "what was measured counts"


def test_without_a_table_deeper_counts_as_better(tiny_bundle_path: Path) -> None:
    bundle = with_table(tiny_bundle_path, {})
    figures = [bundle.average_precision(config) for config in (BASE, single(0, full=True), FULL)]
    assert figures == sorted(figures)
    assert figures[-1] == 1.0


@given(gains=st.lists(st.floats(-0.1, 0.1), min_size=8, max_size=8), paths=st.tuples(*[st.booleans()] * 8))
def test_estimates_stay_between_base_and_full(
    tiny_bundle_path: Path, gains: list[float], paths: tuple[bool, ...]
) -> None:
    singles = {single(index, full=True): 0.4 + gain for index, gain in enumerate(gains)}
    bundle = with_table(tiny_bundle_path, {FULL: 0.48, BASE: 0.4, **singles})
    if DepthConfig(paths) not in singles:
        assert 0.4 - 1e-9 <= bundle.average_precision(DepthConfig(paths)) <= 0.48 + 1e-9

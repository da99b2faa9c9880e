"""The ladder: Pareto-optimal rungs between base and full, and the configurations to start from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import EIGHT

from anydepth_perception.bundle import Bundle, parse_manifest
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.depth.space import DepthConfig

BASE, FULL = EIGHT.base, EIGHT.full
CONFIGS = list(EIGHT.all())


def rung(text: str, latency_ms: float, average_precision: float) -> Rung:
    return Rung(EIGHT.parse(text), latency_ms, average_precision)


def names(ladder: Ladder) -> list[str]:
    return [str(r.config) for r in ladder.rungs]


def test_dominated_rungs_are_left_out() -> None:
    ladder = Ladder.pareto(
        [
            rung("full", 20, 0.5),
            rung("base", 10, 0.4),
            rung("FEEE.EEEE", 12, 0.39),
            rung("EFEE.EEEE", 13, 0.45),
            rung("EEFE.EEEE", 14, 0.44),
        ],
        base=BASE,
        full=FULL,
    )
    assert names(ladder) == ["EEEE.EEEE", "EFEE.EEEE", "FFFF.FFFF"]
    assert (ladder.base.latency_ms, ladder.full.latency_ms, len(ladder)) == (10, 20, 3)


def test_base_and_full_stay_the_ends_in_a_noisy_measurement() -> None:
    rungs = [
        rung("base", 10, 0.4),
        rung("FEEE.EEEE", 9, 0.45),
        rung("EFEE.EEEE", 15, 0.6),
        rung("FFFF.FFFE", 21, 0.49),
        rung("full", 20, 0.5),
    ]
    assert names(Ladder.pareto(rungs, base=BASE, full=FULL)) == ["EEEE.EEEE", "EFEE.EEEE", "FFFF.FFFF"]


def test_full_is_the_only_rung_where_base_is_no_faster() -> None:
    assert names(Ladder.pareto([rung("base", 10, 0.4), rung("full", 9, 0.5)], base=BASE, full=FULL)) == ["FFFF.FFFF"]


def test_rungs_of_unknown_latency_are_left_out() -> None:
    rungs = [rung("base", 10, 0.4), rung("FEEE.EEEE", math.nan, 0.45), rung("full", 20, 0.5)]
    assert len(Ladder.pareto(rungs, base=BASE, full=FULL)) == 2


def test_missing_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no rung with a usable latency for EEEE\.EEEE"):
        Ladder.pareto([rung("full", 20, 0.5)], base=BASE, full=FULL)


def test_empty_and_unordered_ladders_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one rung"):
        Ladder.pareto([])
    with pytest.raises(ValueError, match="not in ascending order"):
        Ladder([rung("full", 20, 0.5), rung("base", 10, 0.4)])


RUNGS = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), min_size=1, max_size=30)


@given(values=RUNGS)
def test_no_rung_of_the_ladder_is_beaten_by_any_candidate(values: list[tuple[float, float]]) -> None:
    candidates = [Rung(CONFIGS[i], latency, ap) for i, (latency, ap) in enumerate(values)]
    for kept in Ladder.pareto(candidates).rungs:
        for other in candidates:
            as_good = other.latency_ms <= kept.latency_ms and other.average_precision >= kept.average_precision
            better = other.latency_ms < kept.latency_ms or other.average_precision > kept.average_precision
            assert not (as_good and better)


@given(values=RUNGS, milliseconds=st.floats(-1, 120))
def test_look_up_gives_the_best_rung_that_fits(values: list[tuple[float, float]], milliseconds: float) -> None:
    candidates = [Rung(CONFIGS[i], latency, ap) for i, (latency, ap) in enumerate(values)]
    fitting = [r.average_precision for r in candidates if r.latency_ms <= milliseconds]
    found = Ladder.pareto(candidates).deepest_within(milliseconds)
    assert (found.average_precision if found else None) == (max(fitting) if fitting else None)


@pytest.mark.parametrize("count", [2, 3, 6, 8, 12])
def test_default_configurations_go_from_base_to_full_in_even_steps(tiny_bundle_path: Path, count: int) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    configs = bundle.default_configs(count)
    costs = [bundle.gflops(config) for config in configs]
    assert (configs[0], configs[-1]) == (bundle.base, bundle.full)
    assert len(set(configs)) == count
    assert costs == sorted(costs)


def test_default_configurations_are_the_best_for_their_cost(tiny_bundle_path: Path) -> None:
    """With gains that differ from stage to stage and equal costs, the stages with the highest gains come first."""
    document = json.loads((tiny_bundle_path / "manifest.json").read_text())
    gains = [0.01, 0.08, 0.02, 0.07, 0.03, 0.06, 0.04, 0.05]
    table = {BASE: 0.1, FULL: 0.1 + sum(gains)}
    for index, gain in enumerate(gains):
        table[DepthConfig(tuple(position == index for position in range(8)))] = 0.1 + gain
    document["accuracy"]["configurations"] = {str(c): {"AP": ap, "measured": True} for c, ap in table.items()}
    bundle = Bundle(tiny_bundle_path, parse_manifest(document, "manifest.json"), "0" * 64)
    assert [str(config) for config in bundle.default_configs(9)] == [
        "EEEE.EEEE",
        "EFEE.EEEE",
        "EFEF.EEEE",
        "EFEF.EFEE",
        "EFEF.EFEF",
        "EFEF.EFFF",
        "EFEF.FFFF",
        "EFFF.FFFF",
        "FFFF.FFFF",
    ]


def test_too_few_default_configurations_are_refused(tiny_bundle_path: Path) -> None:
    with pytest.raises(ValueError, match="count is 1, expected at least 2"):
        Bundle.load(tiny_bundle_path).default_configs(1)

"""The accuracy table: what is measured, how well the fitted estimate predicts the rest, and how a bundle gets it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle

from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.depth.space import EXITS, DepthConfig, DepthSpace
from training.export.accuracy import configs_that_matter, make_plan, measure_table, write_accuracy
from training.export.estimate import fit_estimate, with_error

STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")
GAINS = dict(zip(STAGES, (0.004, 0.009, 0.006, 0.002, 0.007, 0.011, 0.003, 0.001), strict=True))


def space_of(num_exits: int, skippable: Sequence[str] = STAGES) -> DepthSpace:
    return DepthSpace.of([*STAGES, EXITS if num_exits else "head"], STAGES, skippable, num_exits)


def additive(config: DepthConfig) -> float:
    exits = {None: 0.0, 1: -0.08, 2: -0.03, 3: -0.01, 4: -0.004, 5: -0.001, 6: 0.0}[config.exit]
    return 0.4 + exits + sum(gain for gain, full in zip(GAINS.values(), config.full_paths, strict=True) if full)


def with_pairs(config: DepthConfig) -> float:
    p2, p3, _, _, fpn_p4, _, _, pan_p5 = config.full_paths
    return additive(config) + 0.006 * (p2 and p3) - 0.004 * (fpn_p4 and pan_p5) - 0.005 * (config.exit == 1 and p2)


def saturating(config: DepthConfig) -> float:
    """Each refinement is worth less after the others; and every measurement is off by a little."""
    gain = additive(DepthConfig(config.full_paths)) - 0.4
    exits = additive(config) - 0.4 - gain
    noise = random.Random(str(config)).gauss(0, 0.001)
    return 0.4 + exits * (1 - 5 * gain) + 0.05 * (1 - 2.7 ** (-gain / 0.03)) + noise


def measure_with(function: Callable[[DepthConfig], float]) -> Callable[..., dict[DepthConfig, dict[str, float]]]:
    def measure(configs: Sequence[DepthConfig]) -> Mapping[DepthConfig, dict[str, float]]:
        return {config: {"AP": function(config), "AP50": 1.5 * function(config)} for config in configs}

    return measure  # type: ignore[return-value]


@pytest.mark.parametrize("num_exits", [0, 6])
def test_plan_has_enough_held_out_configurations_that_the_fit_never_sees(num_exits: int) -> None:
    plan = make_plan(space_of(num_exits), 48, 32)
    assert len(plan.held_out) == 32
    assert len(plan.fitted) == 48
    assert not {*plan.matter, *plan.fitted} & {*plan.held_out}


def test_configurations_that_matter_are_ends_singles_prefixes_and_exits() -> None:
    texts = set(map(str, configs_that_matter(space_of(6))))
    assert {"FFFF.FFFF.d6", "EEEE.EEEE.d4", "FFFE.FFFF.d6", "EEEE.FEEE.d4"} <= texts
    assert {"EEEE.FFFF.d6", "FFFF.EEEE.d6", "EEFF.FFFF.d6", "FFFF.FFEE.d6"} <= texts
    assert {f"FFFF.FFFF.d{index}" for index in range(1, 7)} <= texts


def test_stages_without_a_choice_are_not_varied() -> None:
    plan = make_plan(space_of(0, ("p4", "p5")), 48, 32)
    texts = [str(config) for config in (*plan.matter, *plan.fitted, *plan.held_out)]
    assert set(texts) == {"FFFF.FFFF", "FFEF.FFFF", "FFFE.FFFF", "FFEE.FFFF"}


@pytest.mark.parametrize("num_exits", [0, 6])
def test_effects_of_stages_exits_and_pairs_are_found(num_exits: int) -> None:
    plan = make_plan(space_of(num_exits), 96, 40)
    measured = {config: with_pairs(config) for config in (*plan.matter, *plan.fitted)}
    estimate = with_error(
        fit_estimate(measured, space_of(num_exits)), {config: with_pairs(config) for config in plan.held_out}
    )
    assert estimate.num_held_out == 40
    assert estimate.mean_absolute_error < 1e-4


@pytest.mark.parametrize(("num_exits", "num_random"), [(0, 48), (6, 96)])
def test_noisy_figures_that_saturate_are_predicted_within_half_a_point(num_exits: int, num_random: int) -> None:
    plan = make_plan(space_of(num_exits), num_random, 32)
    estimate = fit_estimate(
        {config: saturating(config) for config in (*plan.matter, *plan.fitted)}, space_of(num_exits)
    )
    unseen = {config: saturating(config) for config in space_of(num_exits).all() if config not in plan.matter}
    assert with_error(estimate, unseen).mean_absolute_error < 0.0025


def test_stage_that_was_never_varied_has_no_effect() -> None:
    measured = {config: additive(config) for config in space_of(0).all() if config.full_paths[0]}
    estimate = fit_estimate(measured, space_of(0))
    assert estimate(DepthConfig.parse("EFFF.FFFF")) == pytest.approx(additive(space_of(0).full), abs=1e-4)


def test_table_measures_the_ladder_that_follows_from_it(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    accuracy = measure_table(measure_with(with_pairs), bundle, "made up", num_random=40, num_held_out=30)
    written = write_accuracy(bundle, accuracy)
    assert all(written.is_measured(config) for config in written.default_configs())
    assert written.has_accuracy
    assert not all(written.is_measured(config) for config in space_of(0).all())


def test_bundle_estimates_what_was_not_measured_with_the_fitted_terms(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    table = measure_table(measure_with(with_pairs), bundle, "made up", num_random=40, num_held_out=30)
    bundle = write_accuracy(bundle, table)
    estimated = [config for config in space_of(0).all() if not bundle.is_measured(config)]
    assert max(abs(bundle.average_precision(config) - with_pairs(config)) for config in estimated) < 2e-4
    assert "fit did not see, it is off by 0.0" in (bundle.path / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("terms", "message"),
    [({"p2 p9": 0.1}, "'p9' is neither a stage"), ({"d1": 0.1}, "'d1' is neither"), ({"p2": "much"}, "a number")],
)
def test_bad_terms_are_refused_and_the_bundle_stays_as_it_was(
    terms: dict[str, object], message: str, tmp_path: Path
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    before = (bundle.path / "manifest.json").read_bytes()
    accuracy = json.loads(before)["accuracy"]
    accuracy["configurations"] = {text: {"AP": 0.4, "AP50": 0.6, "measured": True} for text in ("full", "base")}
    accuracy["estimate"] = {"num_held_out": 30, "mean_absolute_error": 0.001, "intercept": 0.4, "terms": terms}
    with pytest.raises(BundleError, match=message):
        write_accuracy(bundle, accuracy)
    assert (bundle.path / "manifest.json").read_bytes() == before
    Bundle.load(bundle.path)


def test_manifest_of_a_detr_with_the_estimate_stays_small(tmp_path: Path) -> None:
    plan = make_plan(space_of(6), 96, 32)
    estimate = fit_estimate({config: saturating(config) for config in (*plan.matter, *plan.fitted)}, space_of(6))
    assert len(estimate.terms) <= 8 + 28 + 5 + 40

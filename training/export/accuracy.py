"""The accuracy table of a bundle: AP measured where it matters, and an estimate fitted to that for all the rest."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anydepth_perception.bundle import Bundle, rewrite_bundle
from anydepth_perception.bundle.manifest import AccuracyEntry, AccuracyTable
from anydepth_perception.bundle.write import read_document
from anydepth_perception.depth.space import DepthConfig, DepthSpace
from training.evaluation.images import EvaluationImages
from training.evaluation.results import bundle_metrics
from training.export.estimate import fit_estimate, with_error
from training.export.manifest import METRIC
from training.export.model_card import MODEL_CARD, model_card

Measure = Callable[[Sequence[DepthConfig]], Mapping[DepthConfig, Mapping[str, float]]]
"""COCO's figures of configurations, by the names of `training.evaluation.coco.METRICS`."""


@dataclass(frozen=True)
class MeasurementPlan:
    """What to measure: configurations that matter by themselves, more for the fit, and some to test it with."""

    matter: tuple[DepthConfig, ...]
    fitted: tuple[DepthConfig, ...]
    held_out: tuple[DepthConfig, ...]


def configs_that_matter(space: DepthSpace) -> tuple[DepthConfig, ...]:
    """Full, base, each stage alone essential and alone full, prefixes from either end, each exit.

    Of the stages those that can skip; the others stay on their full path.
    """
    stages, last = space.skippable, space.full.exit

    def essential(chosen: Sequence[str], exit_number: int | None) -> DepthConfig:
        return space.with_full(set(space.stages) - set(chosen), exit_number)

    singles = [essential([name], last) for name in stages]
    additions = [essential([other for other in stages if other != name], space.base_exit) for name in stages]
    prefixes = [essential(stages[:length], last) for length in range(2, len(stages) + 1)]
    suffixes = [essential(stages[length:], last) for length in range(1, len(stages) - 1)]
    exits = [essential(chosen, number) for number in range(1, space.num_exits) for chosen in ((), stages)]
    return tuple(dict.fromkeys([space.full, space.base, *singles, *additions, *prefixes, *suffixes, *exits]))


def make_plan(space: DepthSpace, num_random: int, num_held_out: int, seed: int = 0) -> MeasurementPlan:
    """Adds random configurations to those that matter; fewer where the detector does not have as many.

    Held-out ones are drawn first among what does not matter by itself, so that there are enough.
    """
    matter = configs_that_matter(space)
    known = set(matter)
    rest = [config for config in space.all() if config not in known]
    random.Random(seed).shuffle(rest)
    held_out = rest[:num_held_out]
    return MeasurementPlan(matter, tuple(rest[num_held_out : num_held_out + num_random]), tuple(held_out))


def measure_table(
    measure: Measure,
    bundle: Bundle,
    dataset: str,
    *,
    num_random: int | None = None,
    num_held_out: int = 32,
    seed: int = 0,
) -> dict[str, Any]:
    """The `accuracy` of a manifest: measured configurations, and the fitted estimate with its error.

    Two rounds: first the plan, then the ladder that follows from what the plan says.

    Args:
        measure: called twice.
        bundle: whose configurations; nothing of its own table is used.
        dataset: what `measure` measures on.
        num_random: configurations for the fit beside those that matter; 48, or 96 with decoder exits, if None.
        num_held_out: configurations to test the estimate with.
        seed: of the random ones.
    """
    num_random = (96 if bundle.space.num_exits else 48) if num_random is None else num_random
    plan = make_plan(bundle.space, num_random, num_held_out, seed)
    metrics = dict(measure([*plan.matter, *plan.fitted, *plan.held_out]))
    average_precision = {config: metrics[config]["AP"] for config in metrics}
    fitted = {config: average_precision[config] for config in (*plan.matter, *plan.fitted)}
    estimate = fit_estimate(fitted, bundle.space)
    estimate = with_error(estimate, {config: average_precision[config] for config in plan.held_out})
    entries = {config: AccuracyEntry(value, True) for config, value in average_precision.items()}
    table = AccuracyTable(dataset, METRIC, entries, estimate)
    believed = Bundle(
        bundle.path, dataclasses.replace(bundle.manifest, accuracy=table), bundle.fingerprint, verify=False
    )
    missing = [config for config in believed.default_configs() if config not in metrics]
    metrics |= measure(missing) if missing else {}
    return {
        "dataset": dataset,
        "metric": METRIC,
        "configurations": {
            str(config): {"AP": round(values["AP"], 5), "AP50": round(values["AP50"], 5), "measured": True}
            for config, values in metrics.items()
        },
        "estimate": {
            "num_held_out": estimate.num_held_out,
            "mean_absolute_error": round(estimate.mean_absolute_error, 6),
            "held_out": {str(config): round(estimate(config), 5) for config in plan.held_out},
            "intercept": round(estimate.intercept, 6),
            "terms": {
                " ".join(sorted(needed)): round(value, 6)
                for needed, value in estimate.terms.items()
                if round(value, 6) != 0
            },
        },
    }


def measure_bundle(
    bundle: Bundle,
    images: EvaluationImages,
    *,
    num_random: int | None = None,
    num_held_out: int = 32,
    progress: bool = False,
) -> dict[str, Any]:
    """The accuracy table of a bundle, measured on `images` with ONNX Runtime; see `measure_table`."""

    def measure(configs: Sequence[DepthConfig]) -> dict[DepthConfig, dict[str, float]]:
        return bundle_metrics(bundle, configs, images, progress=progress)

    return measure_table(measure, bundle, images.description, num_random=num_random, num_held_out=num_held_out)


def write_accuracy(bundle: Bundle, accuracy: Mapping[str, Any]) -> Bundle:
    """Puts an accuracy table into the manifest of a bundle, and into its model card where it has one.

    Raises:
        BundleError: the table is not valid; the bundle is left as it was.
        OSError: the files cannot be written.
    """
    files: dict[str, bytes | None] = {}
    if MODEL_CARD in bundle.manifest.files:
        files[MODEL_CARD] = model_card({**read_document(bundle), "accuracy": accuracy}).encode()
    return rewrite_bundle(bundle, manifest={"accuracy": dict(accuracy)}, files=files)

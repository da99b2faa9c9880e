"""The accuracy table of a bundle: AP measured where it matters, and an estimate fitted to that for all the rest."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.bundle.bundle import MANIFEST_FILE
from anydepth_perception.bundle.manifest import AccuracyEntry, AccuracyTable
from anydepth_perception.depth.accuracy import AccuracyEstimate
from anydepth_perception.depth.config import (
    ESSENTIAL,
    FULL,
    STAGES,
    DepthConfig,
    all_configs,
    base_exit,
    space_of_eight,
)
from training.evaluation.coco import metrics_by_depth
from training.evaluation.images import EvaluationImages, add_image_options, chosen_images
from training.evaluation.results import bundle_results
from training.export.model_card import model_card

METRIC = "AP (COCO 0.50:0.95), in [0,1]"
PENALTIES = tuple(10.0**exponent for exponent in np.arange(-4, 3.01, 0.25))
"""Ridge penalties on pairs that are tried."""

Measure = Callable[[Sequence[DepthConfig]], Mapping[DepthConfig, Mapping[str, float]]]
"""COCO's figures of configurations, by the names of `training.evaluation.coco.METRICS`."""

Terms = dict[frozenset[str], float]


@dataclass(frozen=True)
class Plan:
    """What to measure: configurations that matter by themselves, more for the fit, and some to test it with."""

    matter: tuple[DepthConfig, ...]
    fitted: tuple[DepthConfig, ...]
    held_out: tuple[DepthConfig, ...]


def configs_that_matter(num_exits: int, stages: Sequence[str]) -> tuple[DepthConfig, ...]:
    """Full, base, each of `stages` alone essential and alone full, prefixes from either end, each exit.

    `stages` are those with anything to skip; the others stay on their full path (in base on the essential one,
    which is the same there).
    """
    last, middle = num_exits or None, base_exit(num_exits)

    def essential(chosen: Iterable[str], exit_index: int | None) -> DepthConfig:
        left_out = set(chosen)
        return DepthConfig(tuple(name not in left_out for name in STAGES), exit_index)

    singles = [essential([name], last) for name in stages]
    additions = [essential([other for other in stages if other != name], middle) for name in stages]
    prefixes = [essential(stages[:length], last) for length in range(2, len(stages) + 1)]
    suffixes = [essential(stages[length:], last) for length in range(1, len(stages) - 1)]
    exits = [essential(chosen, index) for index in range(1, num_exits) for chosen in ((), stages)]
    ends = [DepthConfig.full(num_exits), DepthConfig.base(num_exits)]
    return tuple(dict.fromkeys([*ends, *singles, *additions, *prefixes, *suffixes, *exits]))


def make_plan(num_exits: int, stages: Sequence[str], num_random: int, num_held_out: int, seed: int = 0) -> Plan:
    """Adds random configurations to those that matter; fewer where the detector does not have as many.

    Held-out ones are drawn first among what does not matter by itself, so that there are enough.
    """
    matter = configs_that_matter(num_exits, stages)
    known = {_paths_that_differ(config, stages) for config in matter}
    rest = []
    for config in all_configs(num_exits):
        fixed = all(full for name, full in zip(STAGES, config.full_paths, strict=True) if name not in stages)
        if fixed and _paths_that_differ(config, stages) not in known:
            rest.append(config)
    random.Random(seed).shuffle(rest)
    held_out = rest[:num_held_out]
    return Plan(matter, tuple(rest[num_held_out : num_held_out + num_random]), tuple(held_out))


def _paths_that_differ(config: DepthConfig, stages: Sequence[str]) -> tuple[object, ...]:
    return (*(config.path(name) for name in stages), config.exit)


def fit_estimate(measured: Mapping[DepthConfig, float], num_exits: int, stages: Sequence[str]) -> AccuracyEstimate:
    """Fits AP to stages, exits and pairs of them, by ridge regression.

    Stages and exits by themselves are fitted freely; pairs (two stages, or a stage and an exit) are drawn towards
    zero by the penalty of `PENALTIES` that predicts best when each configuration is left out in turn.

    Args:
        measured: AP in [0, 1].
        num_exits: of the detector.
        stages: those with anything to skip.

    Raises:
        ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError("an estimate needs measured configurations; there are none")
    # Centred, so that a pair says what the two add beyond what each does on average.
    centres = dict.fromkeys(stages, 0.5) | {f"d{index}": 1 / num_exits for index in range(1, num_exits)}
    exits = [name for name in centres if name not in stages]
    mains = [(name,) for name in centres]
    pairs = [*itertools.combinations(stages, 2), *itertools.product(stages, exits)]
    columns = [(), *mains, *pairs]
    design = np.array([[_value(column, config, centres) for column in columns] for config in measured])
    target = np.array(list(measured.values()))
    # A stage that was never varied gets no effect, instead of any.
    slight = np.array([0.0] + [1e-9] * len(mains) + [0.0] * len(pairs))
    paired = np.array([0.0] * (1 + len(mains)) + [1.0] * len(pairs))

    def solve(penalty: float) -> tuple[float, np.ndarray]:
        weights = slight + penalty * paired
        inverse = np.linalg.pinv(design.T @ design + np.diag(weights)) @ design.T
        hat = np.einsum("ij,ji->i", design, inverse)
        coefficients = inverse @ target
        left_out = (target - design @ coefficients) / np.maximum(1 - hat, 1e-6)
        return float(np.square(left_out).sum()), coefficients

    _, best = min((solve(penalty) for penalty in PENALTIES), key=lambda solution: solution[0])
    terms: Terms = {}
    for column, coefficient in zip(columns, best.tolist(), strict=True):
        for subset, factor in _expand(column, centres).items():
            terms[subset] = terms.get(subset, 0.0) + coefficient * factor
    intercept = terms.pop(frozenset())
    return AccuracyEstimate(space_of_eight(num_exits), intercept, terms, 0, 0.0)


def _holds(name: str, config: DepthConfig) -> bool:
    return config.path(name) == FULL if name in STAGES else name == f"d{config.exit}"


def _value(column: Sequence[str], config: DepthConfig, centres: Mapping[str, float]) -> float:
    return float(np.prod([_holds(name, config) - centres[name] for name in column]))


def _expand(column: Sequence[str], centres: Mapping[str, float]) -> Terms:
    """A product of centred indicators as a sum of products of plain ones."""
    expanded: Terms = {frozenset(): 1.0}
    for name in column:
        expanded = {
            **{subset | {name}: factor for subset, factor in expanded.items()},
            **{subset: -centres[name] * factor for subset, factor in expanded.items()},
        }
    return expanded


def with_error(estimate: AccuracyEstimate, held_out: Mapping[DepthConfig, float]) -> AccuracyEstimate:
    """The estimate with its mean absolute error over configurations that it was not fitted to."""
    errors = [abs(estimate(config) - measured) for config, measured in held_out.items()]
    return dataclasses.replace(
        estimate, num_held_out=len(errors), mean_absolute_error=sum(errors) / len(errors) if errors else 0.0
    )


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
    stages = skippable_stages(bundle)
    plan = make_plan(bundle.space.num_exits, stages, num_random, num_held_out, seed)
    metrics = dict(measure([*plan.matter, *plan.fitted, *plan.held_out]))
    average_precision = {config: metrics[config]["AP"] for config in metrics}
    estimate = fit_estimate(
        {config: average_precision[config] for config in (*plan.matter, *plan.fitted)}, bundle.space.num_exits, stages
    )
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


def skippable_stages(bundle: Bundle) -> tuple[str, ...]:
    """The stages whose two paths are not the same segment."""
    stages = bundle.manifest.stages
    return tuple(name for name in STAGES if stages[name][ESSENTIAL] != stages[name][FULL])


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
        metrics = metrics_by_depth(bundle_results(bundle, configs, images, progress=progress), images.class_names)
        return {config: metrics[str(config)] for config in configs}

    return measure_table(measure, bundle, images.description, num_random=num_random, num_held_out=num_held_out)


def write_accuracy(bundle: Bundle, accuracy: Mapping[str, Any]) -> Bundle:
    """Puts an accuracy table into the manifest of a bundle, and into its model card where it has one.

    Raises:
        BundleError: the table is not valid; the bundle is left as it was.
        OSError: the files cannot be written.
    """
    document = json.loads((bundle.path / MANIFEST_FILE).read_text(encoding="utf-8"))
    document["accuracy"] = dict(accuracy)
    changed: dict[str, bytes] = {}
    if "MODEL_CARD.md" in document["files"]:
        changed["MODEL_CARD.md"] = model_card(document).encode()
        document["files"]["MODEL_CARD.md"] = hashlib.sha256(changed["MODEL_CARD.md"]).hexdigest()
    changed[MANIFEST_FILE] = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
    before = {name: (bundle.path / name).read_bytes() for name in changed}
    try:
        _write(bundle.path, changed)
        return Bundle.load(bundle.path)
    except BundleError:
        _write(bundle.path, before)
        raise


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        aside = folder / f".{name}.{os.getpid()}"
        aside.write_bytes(data)
        aside.replace(folder / name)


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.accuracy models/aisle-yolo-t.anydepth --count 500`."""
    parser = argparse.ArgumentParser(prog="training.accuracy", description=__doc__)
    parser.add_argument("bundle", help="bundle folder, or the name of a shipped bundle; its table is replaced")
    add_image_options(parser, split="val")
    parser.add_argument("--random", type=int, metavar="N", help="more configurations for the fit (default: 48 or 96)")
    parser.add_argument("--held-out", type=int, default=32, metavar="N", help="to test the estimate (default: 32)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the table, as JSON, to this file")
    parser.add_argument("--dry-run", action="store_true", help="leave the bundle as it is")
    options = parser.parse_args(arguments)
    try:
        bundle = Bundle.load(find_bundle(options.bundle))
        images = chosen_images(options, bundle.class_names)
        accuracy = measure_bundle(
            bundle, images, num_random=options.random, num_held_out=options.held_out, progress=sys.stderr.isatty()
        )
        if not options.dry_run:
            bundle = write_accuracy(bundle, accuracy)
        if options.output:
            options.output.write_text(json.dumps(accuracy, indent=1) + "\n", encoding="utf-8")
    except (BundleError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    estimate, measured = accuracy["estimate"], accuracy["configurations"]
    print(f"{bundle.name}: {len(measured)} configurations measured on {accuracy['dataset']}")
    for config in (bundle.full, bundle.base):
        print(f"  {config}: AP {100 * measured[str(config)]['AP']:.1f}")
    print(
        f"estimate of the others: {len(estimate['terms'])} terms, mean absolute error "
        f"{100 * estimate['mean_absolute_error']:.2f} AP over {estimate['num_held_out']} held-out configurations"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

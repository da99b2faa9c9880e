"""Fills docs/evidence.md: measures the runs of the evidence study, keeps the figures as JSON, writes the tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.depth.space import DepthConfig
from training.analysis import plots
from training.analysis.cka import boundary_cka
from training.analysis.errors import count_errors
from training.analysis.evidence_tables import CKA_VARIANTS, ERROR_VARIANTS, OURS, SHIPPED, SWEEP, blocks, fill
from training.analysis.reports import analyse_samples, bundle_depths, tensors
from training.analysis.study import Study, load_study, run_folder, study_results
from training.evaluation.depths import gflops_of
from training.evaluation.images import AisleImages
from training.evaluation.results import bundle_metrics, model_metrics, model_results
from training.recipes.recipe import RecipeError
from training.recipes.weights import Weights, load_weights

DOCS = Path(__file__).parents[2] / "docs"
KEPT = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
TEST_IMAGES = 500
CKA_IMAGES = 50
MIXTURE_IMAGES = 200
"""All 256 configurations of one run take a quarter of an hour on these."""


def measure_study(study: Study, runs: Path) -> dict[str, Any]:
    """COCO's figures of all runs on the test split, and what they were trained with."""
    recipe = study.recipe_of(OURS, study.seeds[0])
    return {
        "model": recipe.model,
        "iterations": recipe.iterations,
        "batch_size": recipe.batch_size,
        "image_size": recipe.image_size,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, PyTorch {torch.__version__}",
        "results": {
            variant: {
                seed: {net: {key: round(values[key], 5) for key in KEPT} for net, values in nets.items()}
                for seed, nets in by_seed.items()
            }
            for variant, by_seed in study_results(study, runs, split="test", count=TEST_IMAGES).items()
        },
    }


def each_run(
    study: Study, runs: Path, variants: tuple[str, ...], measure: Callable[[Weights], Any], seeds: int | None = None
) -> dict[str, dict[str, Any]]:
    """`measure` of the weights of variants, by variant and seed, of those that were trained."""
    measured: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for seed in study.seeds[:seeds]:
            path = run_folder(runs, variant, seed) / "model.safetensors"
            if path.exists():
                print(f"{variant}, seed {seed}", flush=True)
                measured.setdefault(variant, {})[str(seed)] = measure(load_weights(path))
    return measured


def cka_of(weights: Weights) -> Any:
    """CKA at the eight boundaries on the first test images, by `BY_NETWORK` and `BY_STAGE`."""
    values = boundary_cka(weights.model, tensors(weights, AisleImages("test", CKA_IMAGES), torch.device("cpu")))
    return {kind: {stage: round(value, 4) for stage, value in stages.items()} for kind, stages in values.items()}


def errors_of(weights: Weights) -> Any:
    """TP, FP and FN of the full network on the test split, as in FINE's Table 5."""
    config = weights.model.space.full
    results = model_results(weights.model, [config], AisleImages("test", TEST_IMAGES), weights.recipe)
    return count_errors(results, str(config)).row()


def depths_of(weights: Weights, configs: list[DepthConfig], count: int) -> dict[str, dict[str, float]]:
    """GFLOPs and COCO's figures of configurations on the first test images."""
    images = AisleImages("test", count)
    metrics = model_metrics(weights.model, configs, images, weights.recipe)
    gflops = gflops_of(weights, configs)
    return {
        depth: {"gflops": round(gflops[depth], 4), **{key: round(values[key], 5) for key in KEPT}}
        for depth, values in ((str(config), values) for config, values in metrics.items())
    }


def every_mixture(weights: Weights) -> dict[str, dict[str, float]]:
    """The same of every configuration of a network, on fewer images."""
    return depths_of(weights, list(weights.model.space.all()), MIXTURE_IMAGES)


def measure_bundle(name: str) -> dict[str, Any]:
    """Full and base of the shipped bundle on the test split, and its whole accuracy table."""
    bundle = Bundle.load(find_bundle(name))
    images = AisleImages("test", TEST_IMAGES)
    ends = [bundle.full, bundle.base]
    metrics = bundle_metrics(bundle, ends, images)
    estimate = bundle.manifest.accuracy.estimate
    assert estimate is not None
    return {
        "name": bundle.name,
        "input": [bundle.manifest.input.height, bundle.manifest.input.width],
        "table_dataset": bundle.manifest.accuracy.dataset,
        "test": {
            label: {key: round(metrics[config][key], 5) for key in KEPT}
            for label, config in zip(("full", "base"), ends, strict=True)
        },
        "estimate": {"held_out": estimate.num_held_out, "mean_absolute_error": estimate.mean_absolute_error},
        "depths": {
            depth: {
                key: point[key] if key == "measured" else round(point[key], 5) for key in ("gflops", "AP", "measured")
            }
            for depth, point in bundle_depths(bundle).items()
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.analysis.evidence --runs runs/evidence`; without `--runs` the tables alone."""
    parser = argparse.ArgumentParser(prog="training.analysis.evidence", description=__doc__)
    parser.add_argument("--runs", type=Path, help="folder of `training.study evidence`; figures are measured anew")
    parser.add_argument("--bundle", default="aisle-yolo-t", help="the shipped bundle (default: %(default)s)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="measure only this file, such as cka (repeatable)"
    )
    parser.add_argument("--docs", type=Path, default=DOCS, help="where evidence.md is (default: this project's docs)")
    options = parser.parse_args(arguments)
    folder: Path = options.docs / "evidence"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if options.runs:
            _measure(load_study("evidence"), options.runs, options.bundle, folder, options.only)
        documents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
        page = options.docs / "evidence.md"
        page.write_text(fill(page.read_text(encoding="utf-8"), blocks(documents)), encoding="utf-8")
        _draw(documents, folder)
    except (RecipeError, ValueError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {page}")
    return 0


def _measure(study: Study, runs: Path, bundle: str, folder: Path, only: list[str]) -> None:
    shipped = find_bundle(bundle).with_suffix(".safetensors")
    measurements: dict[str, Callable[[], Any]] = {
        "study": lambda: measure_study(study, runs),
        "cka": lambda: {**each_run(study, runs, CKA_VARIANTS, cka_of), SHIPPED: {"": cka_of(load_weights(shipped))}},
        "errors": lambda: each_run(study, runs, ERROR_VARIANTS, errors_of),
        "sweep": lambda: each_run(
            study,
            runs,
            (OURS,),
            lambda weights: depths_of(weights, list(map(weights.model.space.parse, SWEEP.values())), TEST_IMAGES),
        ),
        "mixtures": lambda: each_run(study, runs, (OURS,), every_mixture, seeds=1),
        "shipped": lambda: measure_bundle(bundle),
    }
    unknown = set(only) - set(measurements)
    if unknown:
        raise ValueError(f"--only {sorted(unknown)[0]}: there is none; they are {', '.join(measurements)}")
    for name, measure in measurements.items():
        if only and name not in only:
            continue
        print(f"-- {name}", flush=True)
        document = measure()
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    first = run_folder(runs, OURS, study.seeds[0]) / "model.safetensors"
    if first.exists() and (not only or "samples" in only):
        analyse_samples(load_weights(first), AisleImages("test", 6), folder)


def _draw(documents: dict[str, Any], folder: Path) -> None:
    """The plots beside the tables, of the first seed."""
    plots.cka_bars(
        {variant: next(iter(seeds.values())) for variant, seeds in documents["cka"].items()}, folder / "cka.png"
    )
    mixtures = next(iter(documents["mixtures"][OURS].values()))
    for name, depths in (("mixtures", mixtures), ("shipped", documents["shipped"]["depths"])):
        entries = {depth: {"depth": depth, **point} for depth, point in depths.items()}
        plots.depth_scatter(entries, folder / f"{name}.png", "")


if __name__ == "__main__":
    sys.exit(main())

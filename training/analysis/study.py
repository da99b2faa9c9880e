"""Trains the variants of a study, seed by seed, evaluates them on one split, and tabulates them."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.evaluation.images import AisleImages
from training.evaluation.results import model_metrics
from training.loop.distributed import join_processes
from training.loop.trainer import train
from training.recipes.recipe import Recipe, RecipeError, find_yaml, load_recipe
from training.recipes.weights import load_weights

STUDIES = Path(__file__).parents[1] / "studies"

SHOWN = ("AP", "AP50", "APs", "APm", "APl")


@dataclass(frozen=True)
class Study:
    """Variants of one recipe.

    Attributes:
        recipe: name or path of the recipe that they share.
        seeds: each variant is trained once with each.
        variants: overrides `key=value` of the recipe, by the variant's name.
    """

    recipe: str
    seeds: tuple[int, ...]
    variants: Mapping[str, tuple[str, ...]]

    def recipe_of(self, variant: str, seed: int) -> Recipe:
        """The recipe of one run.

        Raises:
            RecipeError: an override that the recipe does not know.
        """
        return load_recipe(self.recipe, (*self.variants[variant], f"seed={seed}"))


def load_study(name_or_path: str) -> Study:
    """Reads a study of `training/studies` by name, or a YAML file, and checks the recipe of every run.

    Raises:
        RecipeError: no such study, another key than `recipe`, `seeds` and `variants`, or a recipe that cannot be used.
    """
    path = find_yaml("study", name_or_path, STUDIES)
    try:
        values = yaml.safe_load(path.read_text())
        variants = {str(name): tuple(map(str, overrides)) for name, overrides in values.pop("variants").items()}
        study = Study(variants=variants, recipe=values.pop("recipe"), seeds=tuple(map(int, values.pop("seeds"))))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{path}: a study has recipe, seeds and variants: {error!r}") from error
    if values or not study.seeds or not study.variants:
        raise RecipeError(f"{path}: a study has recipe, seeds and variants, of each at least one, and nothing else")
    for variant in study.variants:
        study.recipe_of(variant, study.seeds[0])
    return study


def run_folder(output: Path, variant: str, seed: int) -> Path:
    """Where the run of one variant and seed is, in the folder of its study."""
    return output / f"{variant.replace(' ', '-')}-seed{seed}"


def run_study(
    study: Study, output: Path, *, split: str, count: int, device: str = "auto", only: Sequence[tuple[str, int]] = ()
) -> None:
    """Trains what is not trained yet and evaluates what is not evaluated yet; `only` these runs, if given.

    Every run has a folder of its own in `output`, where it goes on after an interruption.
    """
    for seed in study.seeds:
        for variant in study.variants:
            if not only or (variant, seed) in only:
                print(f"{variant}, seed {seed}", flush=True)
                _run(study.recipe_of(variant, seed), run_folder(output, variant, seed), split, count, device)


def study_results(study: Study, output: Path, *, split: str, count: int) -> dict[str, Any]:
    """COCO's figures of the runs that were evaluated: by variant, seed and net (`super`, `base`)."""
    results: dict[str, Any] = {}
    for variant in study.variants:
        for seed in study.seeds:
            path = run_folder(output, variant, seed) / f"{split}-{count}.json"
            if path.exists():
                results.setdefault(variant, {})[str(seed)] = json.loads(path.read_text())
    return results


def _run(recipe: Recipe, folder: Path, split: str, count: int, device: str) -> None:
    path = folder / f"{split}-{count}.json"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    processes = join_processes(device)
    weights_path = folder / "model.safetensors"
    if not weights_path.exists():
        train(recipe, folder, processes)
    weights = load_weights(weights_path)
    model = weights.model.to(processes.device)
    by_pass = {"super": model.space.full, "base": model.space.base}
    configs = {name: by_pass[name] for name in recipe.trained_passes}
    images = AisleImages(split, count)
    metrics = model_metrics(model, list(configs.values()), images, recipe, progress=sys.stderr.isatty())
    named = {name: metrics[config] for name, config in configs.items()}
    path.write_text(json.dumps(named, indent=1) + "\n")


def table(results: Mapping[str, Mapping[str, Any]], metrics: Sequence[str] = SHOWN) -> str:
    """Markdown: per variant and net the mean over the seeds, in %, and behind AP the range over the seeds."""
    lines = [
        "| variant | net | " + " | ".join(metrics) + " | seeds |",
        "|---|---|" + "---|" * (len(metrics) + 1),
    ]
    for variant, by_seed in results.items():
        for net in next(iter(by_seed.values())):
            cells = []
            for metric in metrics:
                values = [100 * of_seed[net][metric] for of_seed in by_seed.values()]
                spread = f" ({min(values):.1f} to {max(values):.1f})" if metric == "AP" and len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            lines.append(f"| {variant} | {net} | " + " | ".join(cells) + f" | {len(by_seed)} |")
    return "\n".join(lines) + "\n"


def runs_of(texts: Sequence[str], study: Study) -> list[tuple[str, int]]:
    """Runs by `VARIANT` (every seed) or `VARIANT:SEED`.

    Raises:
        RecipeError: the study has no such run.
    """
    chosen = []
    for text in texts:
        variant, _, seed = text.partition(":")
        if variant not in study.variants or (seed and seed not in map(str, study.seeds)):
            raise RecipeError(
                f"there is no run {text!r}; the variants are {', '.join(study.variants)}, "
                f"the seeds {', '.join(map(str, study.seeds))}"
            )
        chosen += [(variant, number) for number in study.seeds if not seed or number == int(seed)]
    return chosen

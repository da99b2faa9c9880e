"""Measures what distillation adds to a training step, and how long steps wait for their images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from anydepth_perception.tools.arguments import whole_number
from anydepth_perception.tools.bench.interleaved import measure_in_turns, median_ratio
from training.data.batches import training_batches
from training.families import family_of
from training.loop.options import add_set_option
from training.loop.trainer import Trainer
from training.models.targets import Targets
from training.recipes.recipe import Recipe, RecipeError, load_recipe

STATIC, JOINT, DISTILLED = "static", "joint", "distilled"

Batch = tuple[Tensor, Targets]


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """The plain network on labels, both nets on labels, and both with every distillation term; weights are random."""
    settings = family_of(recipe.model).distillation
    recipe = dataclasses.replace(recipe, initial_weights=None, base_from=0)
    joint = dataclasses.replace(recipe, any_depth=True, passes=("super", "base"), distillation=None)
    return {
        STATIC: dataclasses.replace(joint, any_depth=False),
        JOINT: joint,
        DISTILLED: dataclasses.replace(joint, distillation=recipe.distillation or settings),
    }


def step_times(recipe: Recipe, batch: Batch, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a step of each variant on one batch that lies in memory, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: Trainer(variant, Path(folder)) for name, variant in variants(recipe).items()}
        return measure_in_turns(
            {name: _step(trainer, batch) for name, trainer in trainers.items()}, max_rounds=rounds, frames=1
        )


def loading(recipe: Recipe, steps: int) -> dict[str, float]:
    """How steps of the distilled recipe spend their time with `recipe.workers` processes that make the images.

    The first batches, before which the workers start, do not count.

    Returns:
        `waiting_ms` and `step_ms`, medians, and `waiting_share`, all waiting over all time.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(variants(recipe)[DISTILLED], Path(folder))
        batches = training_batches(recipe.samples, 0)
        trainer.step(*next(batches))
        times = [_waiting_and_step(batches, trainer) for _ in range(steps)]
    waiting, stepping = zip(*times, strict=True)
    return {
        "waiting_ms": round(statistics.median(waiting), 2),
        "step_ms": round(statistics.median(stepping), 2),
        "waiting_share": round(sum(waiting) / (sum(waiting) + sum(stepping)), 4),
    }


def _step(trainer: Trainer, batch: Batch) -> Callable[[], object]:
    return lambda: trainer.step(*batch)


def _waiting_and_step(batches: Iterator[Batch], trainer: Trainer) -> tuple[float, float]:
    started = time.perf_counter()
    batch = next(batches)
    arrived = time.perf_counter()
    trainer.step(*batch)
    return (arrived - started) * 1e3, (time.perf_counter() - arrived) * 1e3


def measure(recipe: Recipe, rounds: int, steps: int) -> dict[str, Any]:
    """All figures."""
    batch = next(training_batches(dataclasses.replace(recipe.samples, workers=0), 0))
    times = step_times(recipe, batch, rounds)
    return {
        "recipe": recipe.model,
        "image_size": list(recipe.samples.image_size_at(0)),
        "batch_size": recipe.batch_size,
        "workers": recipe.workers,
        "step_ms": {name: round(statistics.median(values), 1) for name, values in times.items()},
        "joint_over_static": round(median_ratio(times, JOINT, STATIC), 3),
        "distilled_over_static": round(median_ratio(times, DISTILLED, STATIC), 3),
        "loading": loading(recipe, steps),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line: prints a few lines, and JSON on the last."""
    parser = argparse.ArgumentParser(prog="training.bench.training", description=__doc__)
    parser.add_argument("recipe", nargs="?", default="study-yolo-t", help="(default: %(default)s)")
    add_set_option(parser)
    parser.add_argument("--rounds", type=whole_number(3), default=12, help="steps of each kind (default: %(default)s)")
    parser.add_argument("--steps", type=whole_number(1), default=20, help="steps with loading (default: %(default)s)")
    parser.add_argument("--workers", type=whole_number(0), default=2, help="that make images (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        recipe = load_recipe(options.recipe, (*options.set, f"workers={options.workers}"))
        report = measure(recipe, options.rounds, options.steps)
    except (RecipeError, ValueError, StopIteration) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{recipe.model}, {recipe.batch_size} images of {report['image_size']} a step")
    for name, value in report["step_ms"].items():
        print(f"  {name}: {value} ms")
    print(f"distilled over static: {report['distilled_over_static']} (bar: 2.1)")
    print(f"waiting for images, {recipe.workers} workers: {report['loading']['waiting_share']:.1%} (bar: 10 %)")
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

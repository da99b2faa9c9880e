"""Trains an any-depth detector: super-net and base-net in two passes over every batch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.loop.checkpoint import CheckpointError
from training.loop.distributed import join_processes, leave_processes
from training.loop.options import add_device_option, add_set_option
from training.loop.trainer import train
from training.recipes.recipe import RecipeError, load_recipe


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.train aisle-yolo-t --output runs/aisle`, by itself or by `torchrun -m`."""
    parser = argparse.ArgumentParser(prog="training.train", description=__doc__)
    parser.add_argument("recipe", help="a recipe of training/recipes, or a YAML file")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run; an unfinished run in it goes on")
    add_set_option(parser)
    add_device_option(parser)
    options = parser.parse_args(arguments)
    try:
        recipe = load_recipe(options.recipe, tuple(options.set))
        options.output.mkdir(parents=True, exist_ok=True)
        train(recipe, options.output, join_processes(options.device))
    except (RecipeError, CheckpointError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        leave_processes()
    return 0


if __name__ == "__main__":
    sys.exit(main())

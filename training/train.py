"""Trains an any-depth detector: super-net and base-net in two passes over every batch."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from anydepth_perception.aisle import CLASS_NAMES
from anydepth_perception.depth.config import STAGES, DepthConfig
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data.scenes import training_batches
from training.ema import ModelEma
from training.evaluate import evaluate_model
from training.losses.assigner import TaskAlignedAssigner
from training.losses.detr import DetrLoss
from training.losses.targets import Targets
from training.losses.yolo import YoloLoss
from training.models.detr import AnyDepthDetr
from training.objective import DetrObjective, Objective, Pass, Terms, YoloObjective
from training.recipe import OptimizerSettings, Recipe, RecipeError, load_recipe
from training.weights import save_weights

BACKBONE = ("stem.", *(f"stages.{stage}." for stage in STAGES[:4]))
"""How the names of the backbone's parameters begin."""


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels, none on norms, biases and other vectors; `rate` of the learning rate."""
    groups = []
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for rate, backbone in ((settings.backbone_rate, True), (1.0, False)):
        parameters = [p for name, p in named if name.startswith(BACKBONE) == backbone]
        groups += [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay, "rate": rate},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "rate": rate},
        ]
    return groups


def learning_rate(settings: OptimizerSettings, iteration: int, iterations: int) -> float:
    """Linear warm-up, then a half cosine down to `final_fraction` of the peak."""
    if iteration < settings.warmup_iterations:
        return settings.learning_rate * (iteration + 1) / settings.warmup_iterations
    progress = (iteration - settings.warmup_iterations) / max(1, iterations - settings.warmup_iterations)
    fraction = settings.final_fraction + (1 - settings.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
    return settings.learning_rate * fraction


def objective_of(recipe: Recipe) -> Objective:
    """The losses of a recipe's detector family, with the recipe's weights."""
    settings = recipe.loss
    if recipe.model.startswith("detr-"):
        return DetrObjective(
            DetrLoss(
                class_weight=settings.varifocal_weight,
                l1_weight=settings.l1_weight,
                giou_weight=settings.giou_weight,
            )
        )
    return YoloObjective(
        YoloLoss(
            box_weight=settings.box_weight,
            class_weight=settings.class_weight,
            dfl_weight=settings.dfl_weight,
            assigner=TaskAlignedAssigner(topk=settings.topk, min_side=settings.min_side),
        )
    )


class Trainer:
    """One training run: model, its moving average, optimizer, and the iteration reached."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.folder = folder
        self.iteration = 0
        self.model = recipe.build_model(len(CLASS_NAMES))
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ModelEma(self.model, decay=recipe.ema_decay, warmup=recipe.ema_warmup)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, recipe.optimizer), lr=recipe.optimizer.learning_rate
        )
        self.objective = objective_of(recipe)

    @property
    def checkpoint_path(self) -> Path:
        """Where the newest state of the run is kept."""
        return self.folder / "checkpoint.pt"

    def step(self, images: Tensor, targets: Targets) -> dict[str, float]:
        """One optimizer step on images [B, 3, H, W] in [0, 1]: two passes, two backwards, one clip, one update.

        Returns the loss terms of each pass, the gradient's norm before clipping and the learning rate.

        Raises:
            FloatingPointError: a loss is not finite; nothing was updated.
        """
        self.model.train()
        rate = learning_rate(self.recipe.optimizer, self.iteration, self.recipe.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.optimizer.zero_grad(set_to_none=True)
        log: dict[str, float] = {}
        teacher = self._super_pass(images, targets, log)
        if self.recipe.any_depth:
            self._base_pass(images, targets, teacher, log)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        self.optimizer.step()
        self.ema.update(self.model)
        self.iteration += 1
        return {**log, "gradient_norm": norm.item(), "learning_rate": rate}

    def _super_pass(self, images: Tensor, targets: Targets, log: dict[str, float]) -> Pass:
        """The super-net on the labels (AnyDepth, equation 4)."""
        outputs = self._forward(images, self.model.full_config(), targets)
        terms, teacher = self.objective.detection(outputs, targets, images.shape[2:])
        self._backward("super", terms, log)
        return teacher

    def _base_pass(self, images: Tensor, targets: Targets, teacher: Pass, log: dict[str, float]) -> None:
        """The base-net on the labels and on what the super-net put out (AnyDepth, equation 5)."""
        settings = self.recipe.loss
        labelled = settings.base_weight > 0
        outputs = self._forward(images, self.model.base_config(), targets if labelled else None)
        terms: Terms = {}
        if labelled:
            detection, student = self.objective.detection(outputs, targets, images.shape[2:])
            terms |= {name: settings.base_weight * term for name, term in detection.items()}
        else:
            student = self.objective.assign(outputs, targets, images.shape[2:])
        if self.recipe.distillation is not None:
            distilled = self.objective.distillation(self.recipe.distillation, teacher, student)
            terms |= {name: settings.distillation_weight * term for name, term in distilled.items()}
        self._backward("base", terms, log)

    def _forward(self, images: Tensor, config: DepthConfig, targets: Targets | None) -> dict[str, Any]:
        """`targets` are for DETR's denoising queries; YOLO has none."""
        if isinstance(self.model, AnyDepthDetr):
            return self.model(images, config, targets)
        return self.model(images, config)

    def _backward(self, name: str, terms: Terms, log: dict[str, float]) -> None:
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the {name}-net's loss is {loss.item()} at iteration {self.iteration}")
        loss.backward()
        log.update({f"{name}_{key}": value.item() for key, value in terms.items()})

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "recipe": json.dumps(dataclasses.asdict(self.recipe)),
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint of the same recipe.

        Raises:
            RecipeError: the checkpoint was made with other settings; the first that differs is named.
        """
        ours = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        theirs = json.loads(state["recipe"])
        for key in ours:
            if ours[key] != theirs.get(key) and key not in ("workers", "checkpoint_every"):
                raise RecipeError(
                    f"{self.checkpoint_path} was made with {key}={theirs.get(key)!r}, the recipe says {ours[key]!r}; "
                    "choose another --output or the same recipe"
                )
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]
        torch.set_rng_state(state["torch_rng"])

    def validate(self) -> dict[str, float]:
        """AP and AP50 of super-net and base-net, moving-average weights, on the first validation images."""
        configs = list(dict.fromkeys((self.model.full_config(), self.model.base_config())))
        metrics = evaluate_model(self.ema.model, configs, "val", self.recipe.validation_images, self.recipe)
        return {
            f"{name}_{key}": metrics[str(config)][key]
            for name, config in zip(("super", "base"), configs, strict=False)
            for key in ("AP", "AP50")
        }

    def run(self) -> None:
        """Trains to the last iteration; logs to `log.csv` and `validation.csv`, ends with `model.safetensors`."""
        recipe = self.recipe
        with tqdm(total=recipe.iterations, initial=self.iteration, unit="step", dynamic_ncols=True) as progress:
            for images, targets in training_batches(recipe, self.iteration):
                log = self.step(images, targets)
                append_row(self.folder / "log.csv", {"iteration": self.iteration, **log})
                progress.update()
                progress.set_postfix(loss=f"{sum(v for k, v in log.items() if k.startswith('super_')):.2f}")
                last = self.iteration == recipe.iterations
                if last or self.iteration % recipe.checkpoint_every == 0:
                    save_checkpoint(self.checkpoint_path, self.state())
                if last or self.iteration % recipe.validate_every == 0:
                    metrics = self.validate()
                    append_row(self.folder / "validation.csv", {"iteration": self.iteration, **metrics})
                    progress.write(f"iteration {self.iteration}: {json.dumps(metrics)}")
        save_weights(self.ema.model, self.folder / "model.safetensors", recipe, CLASS_NAMES, self.iteration)


def append_row(path: Path, row: dict[str, float]) -> None:
    """Appends a row to a CSV file, with a header where the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def drop_rows_after(path: Path, iteration: int) -> None:
    """Removes rows that a resumed run will write again."""
    if path.exists():
        header, *rows = path.read_text().splitlines()
        kept = [row for row in rows if int(row.split(",")[0]) <= iteration]
        path.write_text("\n".join([header, *kept]) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.train aisle-yolo-t --output runs/aisle`."""
    parser = argparse.ArgumentParser(prog="training.train", description=__doc__)
    parser.add_argument("recipe", help="a recipe of training/recipes, or a YAML file")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run; an unfinished run in it goes on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a recipe's setting")
    options = parser.parse_args(arguments)
    try:
        recipe = load_recipe(options.recipe, tuple(options.set))
        options.output.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(recipe, options.output)
        if trainer.checkpoint_path.exists():
            trainer.restore(load_checkpoint(trainer.checkpoint_path))
            for name in ("log.csv", "validation.csv"):
                drop_rows_after(options.output / name, trainer.iteration)
            print(f"resumed at iteration {trainer.iteration} of {recipe.iterations}")
    except (RecipeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    trainer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

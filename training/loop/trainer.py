"""Trains an any-depth detector: super-net and base-net in two passes over every batch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from anydepth_perception.depth.space import DepthConfig
from training.data.batches import training_batches, training_data
from training.data.processes import ALONE, Processes
from training.evaluation.images import AisleImages, CocoImages, EvaluationImages
from training.evaluation.results import model_metrics
from training.families import family_of
from training.loop.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.loop.distributed import mean_over_processes, synchronize_batch_norms
from training.loop.ema import ModelEma
from training.loop.optimizer import learning_rate, make_optimizer
from training.loop.run_log import append_row, drop_rows_after
from training.losses.objective import Pass, Terms
from training.models.targets import Targets
from training.recipes.recipe import Recipe, RecipeError
from training.recipes.weights import save_weights, start_from


def validation_images(recipe: Recipe, class_names: Sequence[str]) -> EvaluationImages | None:
    """What a run validates on: aisle scenes, or the `coco` entry's validation set; None where it has none.

    Raises:
        EvaluationDataError: the annotations cannot be used.
    """
    if recipe.coco is None:
        return AisleImages("val", recipe.validation_images)
    if not recipe.coco.validation_annotations:
        return None
    annotations, folder = Path(recipe.coco.validation_annotations), Path(recipe.coco.validation_folder)
    return CocoImages(annotations, folder, class_names, recipe.validation_images)


class Trainer:
    """One training run: model, its moving average, optimizer, and the iteration reached.

    Attributes:
        recipe: what to train, and how.
        folder: where the run writes.
        processes: our place among the processes of the run.
        iteration: optimizer steps taken.
        random_tensors: which tensors `initial_weights` did not give.
        data: what it trains on.
        validation: what it validates on; None = it does not.
        model: the network itself.
        network: the same, behind data-parallel training where there are several processes.
        ema: its moving average.
    """

    def __init__(self, recipe: Recipe, folder: Path, processes: Processes = ALONE) -> None:
        """Builds everything, with random or the recipe's initial weights.

        Raises:
            RecipeError: the batch cannot be shared out evenly, or `initial_weights` cannot be used.
        """
        if recipe.batch_size % (processes.count * recipe.accumulate):
            raise RecipeError(
                f"batch_size {recipe.batch_size} is not a multiple of {processes.count} processes x "
                f"accumulate {recipe.accumulate}"
            )
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.folder = folder
        self.processes = processes
        self.iteration = 0
        self.data = training_data(recipe.samples)
        self.validation = validation_images(recipe, self.data.class_names)
        self.model = recipe.build_model(len(self.data.class_names))
        self.random_tensors: list[str] = []
        if recipe.initial_weights:
            self.random_tensors = start_from(self.model, Path(recipe.initial_weights))
        if recipe.sync_norms:
            synchronize_batch_norms(self.model)
        self.model.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: nn.Module = self.model
        if processes.count > 1:
            # Each pass leaves the parameters of the other's path without a gradient.
            self.network = DistributedDataParallel(self.model, find_unused_parameters=True)
        self.ema = ModelEma(self.model, decay=recipe.ema_decay, warmup=recipe.ema_warmup)
        self.optimizer = make_optimizer(self.model, recipe.optimizer, self.model.backbone)
        self.objective = family_of(recipe.model).objective(recipe.loss)

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
        # Whatever is drawn follows from the iteration, so that a resumed run draws the same.
        torch.manual_seed((self.recipe.seed * 1_000_003 + self.iteration) * 1_009 + self.processes.rank)
        rate = learning_rate(self.recipe.optimizer, self.iteration, self.recipe.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.optimizer.zero_grad(set_to_none=True)
        log: dict[str, float] = {}
        parts = self.recipe.accumulate
        for part, part_targets in zip(images.chunk(parts), targets.chunk(parts), strict=True):
            passes, teacher = self.recipe.passes_at(self.iteration), None
            if "super" in passes:
                teacher = self._super_pass(part, part_targets, log)
            if "base" in passes:
                self._base_pass(part, part_targets, teacher, log)
        log = mean_over_processes(log)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm.item()} {self._where}")
        self.optimizer.step()
        self.ema.update(self.model)
        self.iteration += 1
        return {**log, "gradient_norm": norm.item(), "learning_rate": rate}

    @property
    def _where(self) -> str:
        """The step being taken, in words: which samples of the run it saw."""
        first = self.iteration * self.recipe.batch_size
        return f"at iteration {self.iteration}, samples {first} to {first + self.recipe.batch_size - 1} of the run"

    def _super_pass(self, images: Tensor, targets: Targets, log: dict[str, float]) -> Pass:
        """The super-net on the labels (AnyDepth, equation 4)."""
        outputs = self._forward(images, self.model.space.full, targets)
        terms, teacher = self.objective.detection(outputs, targets, images.shape[2:])
        self._backward("super", terms, log)
        return teacher

    def _base_pass(self, images: Tensor, targets: Targets, teacher: Pass | None, log: dict[str, float]) -> None:
        """The base-net on the labels and on what the super-net put out (AnyDepth, equation 5)."""
        settings = self.recipe.loss
        labelled = settings.base_weight > 0
        outputs = self._forward(images, self.model.space.base, targets if labelled else None)
        terms: Terms = {}
        if labelled:
            detection, student = self.objective.detection(outputs, targets, images.shape[2:])
            terms |= {name: settings.base_weight * term for name, term in detection.items()}
        else:
            student = self.objective.assign(outputs, targets, images.shape[2:])
        if self.recipe.distillation is not None:
            assert teacher is not None
            distilled = self.objective.distillation(self.recipe.distillation, teacher, student)
            terms |= {name: settings.distillation_weight * term for name, term in distilled.items()}
        self._backward("base", terms, log)

    def _forward(self, images: Tensor, config: DepthConfig, targets: Targets | None) -> dict[str, Any]:
        """`targets` are for DETR's denoising queries."""
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self._mixed_precision):
            outputs = self.network(images, config, targets if self.recipe.loss.denoising else None)
        return to_float32(outputs) if self._mixed_precision else outputs

    @property
    def _mixed_precision(self) -> bool:
        return (
            self.recipe.mixed_precision
            and self.processes.device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )

    def _backward(self, name: str, terms: Terms, log: dict[str, float]) -> None:
        parts = self.recipe.accumulate
        scale = self.recipe.batch_size if self.recipe.loss.times_batch else 1
        loss = torch.stack(list(terms.values())).sum() * scale / parts
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the {name}-net's loss is {loss.item()} {self._where}")
        loss.backward()
        for key, value in terms.items():
            log[f"{name}_{key}"] = log.get(f"{name}_{key}", 0.0) + value.item() / parts

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "recipe": json.dumps(dataclasses.asdict(self.recipe)),
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
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

    def validate(self) -> dict[str, float]:
        """AP and AP50 of the nets that the last step trained, with averaged weights, on the images of `validation`."""
        by_pass = {"super": self.model.space.full, "base": self.model.space.base}
        passes = self.recipe.passes_at(self.iteration - 1)
        configs = [by_pass[name] for name in passes]
        assert self.validation is not None
        metrics = model_metrics(self.ema.model, configs, self.validation, self.recipe)
        return {
            f"{name}_{key}": metrics[config][key]
            for name, config in zip(passes, configs, strict=True)
            for key in ("AP", "AP50")
        }

    def run(self) -> None:
        """Trains to the last iteration; logs to `log.csv` and `validation.csv`, ends with `model.safetensors`.

        Raises:
            FloatingPointError: a loss is not finite; the last checkpoint is left as it is.
            CheckpointError: the last checkpoint cannot be written; an earlier one is tried again later.
        """
        recipe, first = self.recipe, self.processes.first
        with tqdm(
            total=recipe.iterations, initial=self.iteration, unit="step", dynamic_ncols=True, disable=not first
        ) as progress:
            for images, targets in training_batches(recipe.samples, self.iteration, self.processes, self.data):
                device = self.processes.device
                log = self.step(images.to(device, non_blocking=True), targets.to(device))
                progress.update()
                if not first:
                    continue
                append_row(self.folder / "log.csv", {"iteration": self.iteration, **log})
                progress.set_postfix(loss=f"{sum(v for k, v in log.items() if k.startswith(('super_', 'base_'))):.2f}")
                last = self.iteration == recipe.iterations
                if last or self.iteration % recipe.checkpoint_every == 0:
                    self._save(last, progress)
                if self.validation is not None and (last or self.iteration % recipe.validate_every == 0):
                    metrics = self.validate()
                    append_row(self.folder / "validation.csv", {"iteration": self.iteration, **metrics})
                    progress.write(f"iteration {self.iteration}: {json.dumps(metrics)}")
        if first:
            path = self.folder / "model.safetensors"
            save_weights(self.ema.model, path, recipe, self.data.class_names, self.iteration)

    def _save(self, last: bool, progress: tqdm[Any]) -> None:
        try:
            save_checkpoint(self.checkpoint_path, self.state())
        except CheckpointError as error:
            if last:
                raise
            progress.write(f"warning: {error}; the run goes on and tries again")


def to_float32(outputs: Any) -> Any:
    """`outputs` of a network, nested in mappings and lists, with all tensors of lower precision in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):
        return {name: to_float32(value) for name, value in outputs.items()}
    if isinstance(outputs, list):
        return [to_float32(value) for value in outputs]
    return outputs


def train(recipe: Recipe, folder: Path, processes: Processes = ALONE) -> None:
    """Trains a recipe to its end in `folder`; goes on from the checkpoint that it finds there.

    Raises:
        RecipeError: the folder holds a run of another recipe, or the recipe cannot be run. Others as `Trainer.run`.
    """
    trainer = Trainer(recipe, folder, processes)
    if trainer.checkpoint_path.exists():
        trainer.restore(load_checkpoint(trainer.checkpoint_path))
    if processes.first:
        print(f"training on {trainer.data.description}", flush=True)
        if recipe.initial_weights:
            print(f"started from {recipe.initial_weights}, tensors left random: {trainer.random_tensors or 'none'}")
        if trainer.iteration:
            print(f"resumed at iteration {trainer.iteration} of {recipe.iterations}", flush=True)
        for name in ("log.csv", "validation.csv"):
            drop_rows_after(folder / name, trainer.iteration)
    trainer.run()

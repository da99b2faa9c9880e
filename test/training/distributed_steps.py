"""Takes five steps in double precision on as many processes as there are; run by test_distributed.py and `torchrun`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch

from training.data.batches import training_batches
from training.data.processes import ALONE, Processes
from training.data.settings import SceneSettings
from training.loop.distributed import join_processes, leave_processes
from training.loop.trainer import Trainer
from training.losses.distillation import YOLO_DISTILLATION, DistillationSettings
from training.models.targets import Targets
from training.recipes.recipe import LossSettings, OptimizerSettings, Recipe

STEPS = 5
_COMMON = {
    "image_size": (64, 64),
    "iterations": STEPS,
    "batch_size": 4,
    "workers": 0,
    "sync_norms": True,
    "data": SceneSettings(frame_sizes=((64, 64),)),
    "optimizer": OptimizerSettings(warmup_iterations=1, learning_rate=1e-3),
}
RECIPES = {
    "yolo": Recipe("yolo-t", distillation=YOLO_DISTILLATION, **_COMMON),
    # Noise of denoising queries is drawn per process.
    "detr": Recipe(
        "detr-r18", distillation=DistillationSettings(), loss=LossSettings(base_weight=0.5, denoising=False), **_COMMON
    ),
}


def steps(family: str, folder: Path, processes: Processes = ALONE) -> tuple[list[dict[str, float]], Trainer]:
    """The log of every step, and the trainer after them."""
    torch.set_default_dtype(torch.float64)
    try:
        trainer = Trainer(RECIPES[family], folder, processes)
        log = []
        for images, targets in training_batches(RECIPES[family].samples, 0, processes):
            log.append(trainer.step(images.double(), in_double(targets)))
        return log, trainer
    finally:
        torch.set_default_dtype(torch.float32)


def in_double(targets: Targets) -> Targets:
    """The same with boxes in double precision."""
    return dataclasses.replace(targets, boxes=targets.boxes.double(), ignored=targets.ignored.double())


def main() -> None:
    """`distributed_steps.py FAMILY FOLDER`: writes log.json and weights.pt of the first process."""
    family, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    processes = join_processes("cpu")
    log, trainer = steps(family, folder, processes)
    if processes.first:
        (folder / "log.json").write_text(json.dumps(log))
        torch.save({"model": trainer.model.state_dict(), "ema": trainer.ema.model.state_dict()}, folder / "weights.pt")
    leave_processes()


if __name__ == "__main__":
    main()

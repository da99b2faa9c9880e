"""A fine-tuning recipe that needs no number from the user: size, batch and schedule from the data and the machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.labels import Picture

SMALL_OBJECT = 16
"""Pixels that a side of the smaller objects (the 10th percentile) should have in the network's input."""

CPU_SIDES, GPU_SIDES = (384, 640), (512, 960)
"""Shortest and longest long side of the input."""

CPU_PIXELS_PER_SECOND = 0.45e6
"""Of input that a CPU core trains yolo-t on, both passes: 0.38 to 0.53 million were seen on slow cores."""

CPU_SECONDS = 14 * 60
"""What a run on a CPU should take, validations left out."""

CPU_BATCH, GPU_BATCH = 8, 32

GPU_EPOCHS = 150
MOST_EPOCHS = 300
LEAST_ITERATIONS, MOST_ITERATIONS = 200, 30_000
VALIDATIONS = 4


@dataclass(frozen=True)
class Machine:
    """What trains: CPU cores, and a GPU or none."""

    cores: int
    gpu: bool


def this_machine() -> Machine:
    """The cores that this process may use, and whether there is a GPU that PyTorch can use."""
    return Machine(len(os.sched_getaffinity(0)), torch.cuda.is_available())


def input_size(pictures: Sequence[Picture], machine: Machine) -> tuple[int, int]:
    """(height, width) of the network's input: the pictures' shape, as small as the small objects allow."""
    widths, heights = np.array([[picture.width, picture.height] for picture in pictures], np.float64).T
    long_side = float(np.median(np.maximum(widths, heights)))
    areas = [label.box[2] * label.box[3] for picture in pictures for label in picture.labels if not label.ignored]
    small = float(np.sqrt(np.percentile(areas, 10))) if areas else SMALL_OBJECT
    least, most = GPU_SIDES if machine.gpu else CPU_SIDES
    long_input = float(np.clip(long_side * SMALL_OBJECT / max(small, 1), least, most))
    aspect = float(np.clip(np.median(widths / heights), 0.5, 2))
    width, height = (long_input, long_input / aspect) if aspect >= 1 else (long_input * aspect, long_input)
    return max(round(height / 32), 1) * 32, max(round(width / 32), 1) * 32


def fine_tuning_recipe(
    pictures: Sequence[Picture], validation: Sequence[Picture], machine: Machine, start: Path | None
) -> dict[str, Any]:
    """The recipe's entries, without `coco`'s files.

    Args:
        pictures: to train on.
        validation: to validate on.
        machine: that trains.
        start: weights to start from; None = random ones.
    """
    height, width = input_size(pictures, machine)
    batch = GPU_BATCH if machine.gpu else CPU_BATCH
    epoch = max(len(pictures) / batch, 1)
    if machine.gpu:
        affordable = GPU_EPOCHS * epoch
    else:
        affordable = CPU_SECONDS * machine.cores * CPU_PIXELS_PER_SECOND / (batch * height * width)
    iterations = int(np.clip(min(affordable, MOST_EPOCHS * epoch), LEAST_ITERATIONS, MOST_ITERATIONS))
    recipe: dict[str, Any] = {
        "model": "yolo-t",
        "image_size": [height, width],
        "small_image_size": [height, width],
        "iterations": iterations,
        "batch_size": batch,
        "mixed_precision": machine.gpu,
        "workers": max(min(machine.cores - 1, 8), 1),
        "ema_decay": 0.998,
        "ema_warmup": max(iterations // 8, 1),
        "validate_every": max(iterations // VALIDATIONS, 1),
        "validation_images": max(min(len(validation), 200), 1),
        "checkpoint_every": max(iterations // 8, 1),
        "optimizer": {"learning_rate": 0.001 if start else 0.002, "warmup_iterations": max(iterations // 10, 1)},
        "loss": {"min_side": 8.0},
        "coco": {
            "yolo": {"mosaic": 0.5, "mixup": 0.0, "scale": 0.5, "plain_epochs": max(int(iterations / epoch / 5), 1)}
        },
    }
    if start is not None:
        recipe["initial_weights"] = str(start)
    return recipe

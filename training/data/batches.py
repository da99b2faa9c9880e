"""Batches for training: from aisle scenes or from images with boxes, shared out among the processes of a run."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from training.data.annotated import Sample
from training.data.images import TrainingImages
from training.data.scenes import TrainingScenes
from training.loop.distributed import ALONE, Processes
from training.models.targets import Targets, pad_targets
from training.recipes.recipe import Recipe

TrainingData = TrainingScenes | TrainingImages
"""Sample i of a run by index i; `class_names` by class index."""


def training_data(recipe: Recipe) -> TrainingData:
    """What a recipe trains on: the images of its `coco` entry, or else aisle scenes.

    Raises:
        CocoError: the annotation file cannot be used.
    """
    return TrainingScenes(recipe) if recipe.coco is None else TrainingImages(recipe, recipe.coco)


def collate(samples: list[Sample]) -> tuple[Tensor, Targets]:
    """Stacks images to [B, 3, H, W] uint8 and pads their objects."""
    images, boxes, labels, ignored = zip(*samples, strict=True)
    return torch.stack(images), pad_targets(boxes, labels, ignored)


def to_float(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in [0, 1], channels last in memory."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


class BatchIndices:
    """Which samples make up each of a process's batches: an equal, contiguous share of each batch of the run."""

    def __init__(self, recipe: Recipe, start: int, processes: Processes) -> None:
        self.recipe = recipe
        self.start = start
        self.processes = processes
        self.share = recipe.batch_size // processes.count

    def __len__(self) -> int:
        return self.recipe.iterations - self.start

    def __iter__(self) -> Iterator[range]:
        for iteration in range(self.start, self.recipe.iterations):
            first = iteration * self.recipe.batch_size + self.processes.rank * self.share
            yield range(first, first + self.share)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)


def training_batches(
    recipe: Recipe, start: int, processes: Processes = ALONE, data: TrainingData | None = None
) -> Iterator[tuple[Tensor, Targets]]:
    """Batches of the iterations from `start` to the recipe's last, images as float [B, 3, H, W] in [0, 1].

    Of several processes each gets its share of every batch. `data` is `training_data(recipe)`, if that is at hand.
    """
    loader = DataLoader(
        training_data(recipe) if data is None else data,
        batch_sampler=BatchIndices(recipe, start, processes),
        num_workers=recipe.workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        # A forked worker would inherit the locks of OpenCV's and PyTorch's threads, but not the threads.
        multiprocessing_context="spawn" if recipe.workers else None,
        prefetch_factor=4 if recipe.workers else None,
    )
    for images, targets in loader:
        yield to_float(images), targets

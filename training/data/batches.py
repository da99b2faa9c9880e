"""Batches for training: from aisle scenes or from images with boxes, shared out among the processes of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from training.data.annotated import Sample
from training.data.images import TrainingImages
from training.data.processes import ALONE, Processes
from training.data.scenes import TrainingScenes
from training.data.settings import SampleSettings
from training.models.targets import Targets, pad_targets

TrainingData = TrainingScenes | TrainingImages
"""Sample i of a run by index i; `class_names` by class index."""


def training_data(settings: SampleSettings) -> TrainingData:
    """What a run trains on: the images of `settings.coco`, or else aisle scenes.

    Raises:
        CocoError: the annotation file cannot be used.
    """
    return TrainingScenes(settings) if settings.coco is None else TrainingImages(settings, settings.coco)


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Targets]:
    """Stacks images to [B, 3, H, W] uint8 and pads their objects; masks only where every sample has them."""
    masks = [sample.masks for sample in samples if sample.masks is not None]
    targets = pad_targets(
        [sample.boxes for sample in samples],
        [sample.labels for sample in samples],
        [sample.ignored for sample in samples],
        masks if len(masks) == len(samples) else None,
    )
    return torch.stack([sample.image for sample in samples]), targets


def to_float(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in [0, 1], channels last in memory."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


class BatchIndices:
    """Which samples make up each of a process's batches: an equal, contiguous share of each batch of the run."""

    def __init__(self, settings: SampleSettings, start: int, processes: Processes) -> None:
        self.settings = settings
        self.start = start
        self.processes = processes
        self.share = settings.batch_size // processes.count

    def __len__(self) -> int:
        return self.settings.iterations - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.start, self.settings.iterations):
            first = iteration * self.settings.batch_size + self.processes.rank * self.share
            yield [*range(first, first + self.share)]


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)


def training_batches(
    settings: SampleSettings, start: int, processes: Processes = ALONE, data: TrainingData | None = None
) -> Iterator[tuple[Tensor, Targets]]:
    """Batches of the iterations from `start` to the run's last, images as float [B, 3, H, W] in [0, 1].

    Of several processes each gets its share of every batch. `data` is `training_data(settings)`, if that is at hand.
    """
    loader = DataLoader(
        training_data(settings) if data is None else data,
        batch_sampler=BatchIndices(settings, start, processes),
        num_workers=settings.workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        # A forked worker would inherit the locks of OpenCV's and PyTorch's threads, but not the threads.
        multiprocessing_context="spawn" if settings.workers else None,
        prefetch_factor=4 if settings.workers else None,
    )
    for images, targets in loader:
        yield to_float(images), targets

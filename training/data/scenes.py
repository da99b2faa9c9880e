"""Batches of aisle scenes: rendered on the fly, deterministic per (seed, iteration), fitted as at run time."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anydepth_perception.aisle import AisleFrame
from anydepth_perception.preprocess import Geometry, Preprocessor
from training.data.aisle import SPLITS, render_image
from training.distributed import ALONE, Processes
from training.losses.targets import Targets, pad_targets
from training.recipe import Recipe

Sample = tuple[Tensor, Tensor, Tensor, Tensor]
"""Image [3, H, W] uint8, boxes [n, 4] xyxy network pixels, labels [n], ignored boxes [k, 4]."""


SCENES_PER_SEED = 100_000
"""Runs of different seeds start this many scenes apart."""


def to_network(boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Boxes [n, 4] from source pixels to network pixels."""
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2, np.float32)
    offset = np.array([geometry.offset_x, geometry.offset_y] * 2, np.float32)
    return boxes.reshape(-1, 4).astype(np.float32) * scale + offset


def fit(frame: AisleFrame, image_size: tuple[int, int], resize: str = "letterbox") -> Sample:
    """A rendered frame as the network of `image_size` (height, width) sees it; `resize` as in `Preprocessor`."""
    preprocess = Preprocessor(*image_size, resize=resize)
    geometry = preprocess(frame.image)
    return (
        torch.from_numpy(preprocess.buffer[0].transpose(2, 0, 1).copy()),
        torch.from_numpy(to_network(frame.boxes, geometry)),
        torch.from_numpy(frame.class_ids.astype(np.int64)),
        torch.from_numpy(to_network(frame.ignore_boxes, geometry)),
    )


def mirror(sample: Sample) -> Sample:
    """The sample seen in a mirror: left and right exchanged."""
    image, boxes, labels, ignored = sample
    width = image.shape[2]

    def flip(b: Tensor) -> Tensor:
        return torch.stack([width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]], dim=1)

    return image.flip(2), flip(boxes), labels, flip(ignored)


class TrainingScenes(Dataset[Sample]):
    """Sample i of a run: scene i of the training split, so that a run never sees a scene twice.

    Frame size and mirroring are drawn from (seed, i) alone: the same whichever worker renders it, and after a resume.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __len__(self) -> int:
        return self.recipe.iterations * self.recipe.batch_size

    def __getitem__(self, index: int) -> Sample:
        data = self.recipe.data
        random = np.random.default_rng((self.recipe.seed, index))
        weights = np.array(data.frame_weights) / sum(data.frame_weights)
        size = data.frame_sizes[int(random.choice(len(weights), p=weights))]
        scene = (self.recipe.seed * SCENES_PER_SEED + index) % len(SPLITS["train"])
        image_size = self.recipe.image_size_at(index // self.recipe.batch_size)
        sample = fit(render_image("train", scene, size), image_size, self.recipe.resize)
        return mirror(sample) if random.random() < data.flip else sample


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


def training_batches(recipe: Recipe, start: int, processes: Processes = ALONE) -> Iterator[tuple[Tensor, Targets]]:
    """Batches of the iterations from `start` to the recipe's last, images as float [B, 3, H, W] in [0, 1].

    Of several processes each gets its share of every batch.
    """
    loader = DataLoader(
        TrainingScenes(recipe),
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

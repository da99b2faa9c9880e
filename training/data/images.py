"""Training samples from images with boxes: which image, which augmentation, all drawn from (seed, position)."""

from __future__ import annotations

import sys

import numpy as np
from torch.utils.data import Dataset

from training.data.annotated import Annotated, Sample, SampleError, fit
from training.data.augment_detr import augment_detr, side_of_batch, to_side
from training.data.augment_yolo import augment_yolo
from training.data.coco import CocoData
from training.data.pictures import ImageReadError
from training.data.settings import CocoSettings, SampleSettings


class TrainingImages(Dataset[Sample]):
    """Sample i of a run: an image of epoch i // N, in the order that (seed, epoch) gives, augmented by (seed, i).

    An epoch has each of the N images once, whatever the batch size and the number of processes; a batch may hold the
    end of one epoch and the start of the next. Nothing else decides a sample: not the worker that makes it, nor what
    came before. Pixels are read when they are needed.

    Attributes:
        class_names: by class index.
        data: the images and boxes.
        description: what there is to train on, in words.
    """

    def __init__(self, settings: SampleSettings, coco: CocoSettings) -> None:
        """Reads the annotation file.

        Raises:
            CocoError: it cannot be used.
        """
        self.settings = settings
        self.coco = coco
        self.data = CocoData(coco.annotations, coco.folder)
        self.class_names = self.data.class_names
        self.description = f"{coco.annotations}: {self.data.summary}"
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._skipped: set[int] = set()

    def __len__(self) -> int:
        return self.settings.count

    def __getitem__(self, position: int) -> Sample:
        index = self.image_at(position)
        try:
            return self._augmented(index, position).to_sample()
        except ImageReadError:
            raise
        except Exception as error:
            raise SampleError(f"{self.data.path(index)}: {type(error).__name__}: {error}") from error

    def image_at(self, position: int) -> int:
        """The image that sample `position` of the run is made from."""
        epoch, place = divmod(position, len(self.data))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.data))
        return int(self._order[1][place])

    def is_plain(self, position: int, plain_epochs: int) -> bool:
        """Whether a sample belongs to the run's last `plain_epochs`."""
        return position >= len(self) - plain_epochs * len(self.data)

    def _augmented(self, index: int, position: int) -> Annotated:
        settings, detr, yolo = self.settings, self.coco.detr, self.coco.yolo
        iteration = settings.iteration_of(position)
        image_size = settings.image_size_at(iteration)
        # Another stream than the epochs' orders.
        random = np.random.default_rng((settings.seed, position, 1))
        source = self._read(index)
        if yolo is not None:
            plain = self.is_plain(position, yolo.plain_epochs)
            return augment_yolo(source, self._draw, image_size, yolo, random, plain=plain)
        if detr is not None:
            plain = self.is_plain(position, detr.plain_epochs)
            result = augment_detr(source, image_size, settings.resize, detr, random, plain=plain)
            # All samples of a batch have to agree, so its first one decides.
            first = iteration * settings.batch_size
            side = None if self.is_plain(first, detr.plain_epochs) else side_of_batch(detr, settings.seed, iteration)
            return result if side is None else to_side(result, side)
        return fit(source, image_size, settings.resize)

    def _draw(self, random: np.random.Generator) -> Annotated:
        return self._read(int(random.integers(len(self.data))))

    def _read(self, index: int) -> Annotated:
        """Image `index`, or the next one that can be read where the settings allow it."""
        for step in range(len(self.data)):
            candidate = (index + step) % len(self.data)
            try:
                return self.data.read(candidate)
            except ImageReadError as error:
                if not self.coco.skip_broken:
                    raise ImageReadError(f"{error}; coco.skip_broken=true goes on without it") from error
                self._report(candidate, error)
        raise ImageReadError(f"{self.data.path(index)}: nor can any other image be read")

    def _report(self, index: int, error: ImageReadError) -> None:
        if index not in self._skipped:
            self._skipped.add(index)
            print(f"skipped {error} ({len(self._skipped)} skipped by this worker)", file=sys.stderr)

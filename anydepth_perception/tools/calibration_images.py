"""Calibration images: those of a folder, fitted to a bundle's input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from anydepth_perception.bundle.manifest import InputSpec
from anydepth_perception.bundle.quantization import CalibrationError
from anydepth_perception.detection.preprocess import Preprocessor

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_folder(folder: Path, count: int) -> Iterator[np.ndarray]:
    """Up to `count` images of `folder`, uint8 [H, W, 3] RGB, spread evenly over its names in order.

    Raises:
        CalibrationError: the folder does not exist, holds no image, or an image cannot be read.
    """
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: no such folder; calibration needs a folder of images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise CalibrationError(f"{folder}: holds no image; looked for {', '.join(SUFFIXES)}")
    chosen = min(count, len(paths))
    for index in range(chosen):
        path = paths[index * len(paths) // chosen]
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None:
            raise CalibrationError(f"{path}: cannot be read as an image; repair it or take it out of the folder")
        yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def fit_images(images: Iterable[np.ndarray], spec: InputSpec) -> list[np.ndarray]:
    """Images [H, W, 3] RGB as the network sees them: uint8 [1, height, width, 3] each."""
    preprocess = Preprocessor(spec.height, spec.width, resize=spec.resize, pad_value=spec.pad_value)
    fitted = []
    for image in images:
        preprocess(image)
        fitted.append(preprocess.buffer.copy())
    return fitted

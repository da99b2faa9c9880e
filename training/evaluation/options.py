"""Options of commands that choose the images to evaluate on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.data.aisle import SPLITS
from training.evaluation.images import CocoImages, EvaluationDataError, EvaluationImages, aisle_images


def add_image_options(parser: argparse.ArgumentParser, split: str = "test") -> None:
    """Options that choose the images: `--split`, `--coco`, `--images`, `--count`."""
    parser.add_argument(
        "--split", default=split, choices=sorted(SPLITS), help="of the aisle scenes (default: %(default)s)"
    )
    parser.add_argument("--coco", type=Path, metavar="FILE", help="take these COCO annotations instead")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="with --coco: where the images lie")
    parser.add_argument("--count", type=int, help="images from the first (default: 500 aisle scenes, all of --coco)")


def chosen_images(options: argparse.Namespace, class_names: Sequence[str]) -> EvaluationImages:
    """The images that the options of `add_image_options` choose, for a network of these classes.

    Raises:
        EvaluationDataError: options that contradict each other, or images that cannot be used.
    """
    if options.count is not None and options.count < 1:
        raise EvaluationDataError(f"--count is {options.count}; it must be at least 1")
    if (options.coco is None) != (options.images is None):
        raise EvaluationDataError("--coco and --images belong together: annotations and the folder of images")
    if options.coco:
        return CocoImages(options.coco, options.images, class_names, options.count)
    return aisle_images(options.split, options.count or 500, class_names)

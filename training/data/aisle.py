"""The aisle data set: train, val and test images drawn from disjoint ranges of scene seeds, and their COCO export."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anydepth_perception.aisle import CLASS_NAMES, AisleFrame, AisleScene

IMAGE_SIZE = (320, 320)
"""Width and height in pixels of the images of the three splits."""

SPLITS: dict[str, range] = {
    "test": range(500),
    "val": range(10_000, 10_500),
    "train": range(1_000_000, 2_000_000),
}
"""Scene seeds of each split; image `index` of a split is one random moment of the scene with that seed."""

MAX_TIME_S = 60.0
SMALL_AREA_SHARE = 32**2 / 640**2
"""COCO's small (under 32 x 32 pixels at 640 x 640) as a share of the image's area."""


def render_image(split: str, index: int, size: tuple[int, int] = IMAGE_SIZE) -> AisleFrame:
    """Image `index` of a split at `size` (width, height) in pixels; always the same for the same arguments.

    Raises ValueError for an unknown split or an index outside of it.
    """
    seed = _seed(split, index)
    time_s = float(np.random.default_rng([seed, 7]).uniform(0, MAX_TIME_S))
    return AisleScene(seed, *size).render(time_s)


def coco_ground_truth(split: str, count: int | None = None, size: tuple[int, int] = IMAGE_SIZE) -> dict[str, Any]:
    """COCO instances (a dict as in its JSON) of the first `count` images of a split, by default all of them.

    Image ids and category ids count from 1; objects to be ignored are annotations with `iscrowd` 1.
    """
    frames = (render_image(split, index, size) for index in range(_checked_count(split, count)))
    return coco_instances(frames, split, size)


def write_coco(
    split: str, folder: str | Path, count: int | None = None, size: tuple[int, int] = IMAGE_SIZE, suffix: str = ".png"
) -> Path:
    """Write the first `count` images of a split to `folder/split` and `folder/annotations/instances_split.json`.

    `suffix` is .png or .jpg. Returns the path of the JSON file.
    """
    if suffix not in (".png", ".jpg"):
        raise ValueError(f"images can be written as .png or .jpg, not as {suffix!r}")
    count = _checked_count(split, count)
    images, annotations = Path(folder) / split, Path(folder) / "annotations"
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)

    def written() -> Iterator[AisleFrame]:
        for index in range(count):
            frame = render_image(split, index, size)
            path = images / _file_name(index, suffix)
            if not cv2.imwrite(str(path), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)):
                raise OSError(f"cannot write the image {path}")
            yield frame

    result = annotations / f"instances_{split}.json"
    result.write_text(json.dumps(coco_instances(written(), split, size, suffix)))
    return result


def coco_instances(
    frames: Iterator[AisleFrame], split: str, size: tuple[int, int], suffix: str = ".png"
) -> dict[str, Any]:
    """COCO instances of frames of a split, in the order of their indices from 0."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, frame in enumerate(frames):
        images.append(
            {"id": index + 1, "file_name": _file_name(index, suffix), "width": size[0], "height": size[1]}
        )
        groups = ((frame.boxes, frame.class_ids, 0), (frame.ignore_boxes, frame.ignore_class_ids, 1))
        for boxes, class_ids, crowd in groups:
            for (x0, y0, x1, y1), class_id in zip(boxes.tolist(), class_ids.tolist(), strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": class_id + 1,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": (x1 - x0) * (y1 - y0),
                        "iscrowd": crowd,
                        "segmentation": [],
                    }
                )
    return {
        "info": {"description": f"synthetic aisle scenes, {split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)],
    }


def contact_sheet(
    split: str, count: int, size: tuple[int, int] = IMAGE_SIZE, boxes: bool = False
) -> np.ndarray:
    """The first `count` images of a split side by side, uint8 [.,.,3] RGB, optionally with their boxes."""
    count = _checked_count(split, count)
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.zeros((rows * size[1], columns * size[0], 3), np.uint8)
    for index in range(count):
        frame = render_image(split, index, size)
        image = draw_boxes(frame) if boxes else frame.image
        y, x = index // columns * size[1], index % columns * size[0]
        sheet[y : y + size[1], x : x + size[0]] = image
    return sheet


def draw_boxes(frame: AisleFrame) -> np.ndarray:
    """A copy of a frame's image with labelled boxes in colour and ignored ones in grey."""
    image = frame.image.copy()
    for box in frame.ignore_boxes.astype(int).tolist():
        cv2.rectangle(image, box[:2], [box[2] - 1, box[3] - 1], (170, 170, 170), 1)
    colours = [(255, 80, 80), (80, 255, 80), (90, 130, 255), (255, 255, 60), (255, 90, 255), (60, 255, 255)]
    for box, class_id in zip(frame.boxes.astype(int).tolist(), frame.class_ids.tolist(), strict=True):
        cv2.rectangle(image, box[:2], [box[2] - 1, box[3] - 1], colours[class_id], 1)
        place = [box[0], max(box[1] - 2, 8)]
        cv2.putText(image, CLASS_NAMES[class_id], place, cv2.FONT_HERSHEY_SIMPLEX, 0.32, colours[class_id], 1)
    return image


def statistics(split: str, count: int, size: tuple[int, int] = IMAGE_SIZE) -> dict[str, Any]:
    """Counts over the first `count` images of a split: objects an image, per class, and the share of small ones."""
    frames = [render_image(split, index, size) for index in range(_checked_count(split, count))]
    boxes = np.concatenate([frame.boxes for frame in frames])
    class_ids = np.concatenate([frame.class_ids for frame in frames])
    sides = boxes[:, 2:] - boxes[:, :2]
    small = sides.prod(1) < SMALL_AREA_SHARE * size[0] * size[1]
    per_image = np.array([len(frame.boxes) for frame in frames])
    per_class = {}
    for class_id, name in enumerate(CLASS_NAMES):
        chosen = class_ids == class_id
        share = float(small[chosen].mean()) if chosen.any() else 0.0
        per_class[name] = {"objects": int(chosen.sum()), "small": round(share, 3)}
    return {
        "images": len(frames),
        "objects_per_image": round(float(per_image.mean()), 2),
        "objects_per_image_percentiles_10_50_90": np.percentile(per_image, [10, 50, 90]).tolist(),
        "ignored_per_image": round(sum(len(frame.ignore_boxes) for frame in frames) / len(frames), 2),
        "small_share": round(float(small.mean()), 3),
        "under_8_px_share": round(float((sides.min(1) < 8).mean()), 3),
        "classes": per_class,
    }


def _seed(split: str, index: int) -> int:
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; the splits are {', '.join(sorted(SPLITS))}")
    if not 0 <= index < len(SPLITS[split]):
        raise ValueError(f"there is no image {index} in {split}; its images are 0 to {len(SPLITS[split]) - 1}")
    return SPLITS[split][index]


def _checked_count(split: str, count: int | None) -> int:
    _seed(split, 0)
    available = len(SPLITS[split])
    if count is None:
        return available
    if not 1 <= count <= available:
        raise ValueError(f"cannot take {count} images of {split}; it has 1 to {available}")
    return count


def _file_name(index: int, suffix: str) -> str:
    return f"{index:06d}{suffix}"


def main() -> None:
    """Look at the aisle data set, count what is in it, or write it in COCO's format."""
    parser = argparse.ArgumentParser(prog="python -m training.data.aisle", description=main.__doc__)
    parser.add_argument("--split", choices=sorted(SPLITS), default="train", help="which images (default: train)")
    parser.add_argument("--count", type=int, default=25, help="how many of them, from the first (default: 25)")
    parser.add_argument("--size", type=int, nargs=2, default=IMAGE_SIZE, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE", help="write the images into one picture")
    parser.add_argument("--boxes", action="store_true", help="draw boxes into the contact sheet (ignored ones grey)")
    parser.add_argument("--coco", type=Path, metavar="FOLDER", help="write images and COCO instances into a folder")
    parser.add_argument("--format", choices=["png", "jpg"], default="png", help="of the images of --coco")
    parser.add_argument("--statistics", action="store_true", help="print counts as JSON")
    options = parser.parse_args()
    size = tuple(options.size)
    if not (options.contact_sheet or options.coco or options.statistics):
        parser.error("nothing to do: give --contact-sheet FILE, --coco FOLDER or --statistics")
    try:
        if options.contact_sheet:
            sheet = contact_sheet(options.split, options.count, size, options.boxes)
            if not cv2.imwrite(str(options.contact_sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
                parser.error(f"cannot write {options.contact_sheet}")
            print(f"wrote {options.contact_sheet}")
        if options.coco:
            print(f"wrote {write_coco(options.split, options.coco, options.count, size, '.' + options.format)}")
        if options.statistics:
            print(json.dumps(statistics(options.split, options.count, size), indent=2))
    except (ValueError, OSError, cv2.error) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

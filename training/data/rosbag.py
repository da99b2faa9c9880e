"""Frames with their detections from a rosbag2 recording, as images and COCO's format, to train on or to annotate.

ROS is not needed: the `rosbags` package reads the recording (sqlite3 or MCAP).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw
import cv2
import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError

from anydepth_perception.detection.images import BadImageError, decode
from training.data.recording import BagError, mend, opened

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
DETECTIONS_TYPE = "vision_msgs/msg/Detection2DArray"

JPEG_QUALITY = 95


Stamp = tuple[int, int]
"""Seconds and nanoseconds of a header."""


class ClassError(ValueError):
    """A class id that is none of the given classes."""


@dataclass
class Counts:
    """What was exported, and what was left out.

    Attributes:
        images: written.
        annotations: boxes written.
        images_without_detections: no detections message has their stamp, left out.
        detections_without_image: detections messages whose stamp no image has.
        repeated_stamps: images with the stamp of an earlier one, left out.
        undecodable_images: left out.
        undecodable_because: why the first of them cannot be decoded.
        below_threshold: boxes left out.
        outside: boxes of which nothing lies in the image, or without area, left out.
    """

    images: int = 0
    annotations: int = 0
    images_without_detections: int = 0
    detections_without_image: int = 0
    repeated_stamps: int = 0
    undecodable_images: int = 0
    undecodable_because: str = ""
    below_threshold: int = 0
    outside: int = 0


@dataclass(frozen=True)
class Found:
    """The detections of one frame: boxes [n, 4] xyxy in pixels, scores [n], and the text of each class id."""

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: tuple[str, ...]


def export(
    bag: Path,
    image_topic: str,
    detections_topic: str,
    output: Path,
    *,
    classes: Sequence[str] = (),
    threshold: float = 0.0,
    every: int = 1,
    suffix: str = ".jpg",
) -> Counts:
    """Writes the frames that have detections to `output/images`, and `output/instances.json`.

    An image and a detections message belong together if their headers have the same stamp. A detections message
    without a detection counts too: its frame becomes an image without objects.

    Args:
        bag: folder of the recording, or its .mcap or .db3 file.
        image_topic: of sensor_msgs/Image or CompressedImage.
        detections_topic: of vision_msgs/Detection2DArray.
        output: folder to write, new or empty.
        classes: names by class index, for a class id that is a name or an index; by default the ids found, sorted.
        threshold: boxes with a lower score are left out. The score of the others is kept as `score`.
        every: take every n-th of the frames that have detections.
        suffix: .jpg or .png.

    Raises:
        BagError: the recording cannot be read, has no such topics or no frame with detections, a class id is not
            one of `classes`, or `output` is not empty.
        OSError: an image cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BagError(f"{output} is there already; choose a new folder")
    counts = Counts()
    try:
        with opened(bag) as reader:
            found = dict(_detections(reader, bag, detections_topic))
            names = tuple(classes) or tuple(sorted({text for one in found.values() for text in one.class_ids}))
            _check_names(names)
            frames = _frames(reader, bag, image_topic, found, every, counts)
            content = _write(frames, found, names, output, threshold, suffix, counts)
    except ClassError as error:
        raise BagError(f"{bag}: {error}") from error
    except (AnyReaderError, ReaderError, apsw.Error) as error:
        raise BagError(f"{bag}: {error}{mend(bag)}") from error
    if not content["images"]:
        raise BagError(
            f"{bag}: no image of {image_topic} has the stamp of a message of {detections_topic} "
            f"({counts.images_without_detections} other images, {len(found)} detections messages, "
            f"{counts.undecodable_images} images that cannot be decoded"
            f"{': ' if counts.undecodable_because else ''}{counts.undecodable_because})"
        )
    (output / "instances.json").write_text(json.dumps(content))
    return counts


def _check_names(names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        if not name.strip() or name in names[:index]:
            what = "stands there twice" if name.strip() else "is empty"
            raise ClassError(f"class {index} of {', '.join(map(repr, names))} {what}; give other --classes")


def _messages(reader: AnyReader, bag: Path, topic: str, types: tuple[str, ...]) -> Iterator[Any]:
    connections = [connection for connection in reader.connections if connection.topic == topic]
    if not connections:
        topics = ", ".join(f"{name} ({info.msgtype})" for name, info in sorted(reader.topics.items()))
        raise BagError(f"{bag}: has no topic {topic!r}; it has {topics or 'none'}")
    for connection in connections:
        if connection.msgtype not in types:
            raise BagError(f"{bag}: {topic} is of type {connection.msgtype}, expected {' or '.join(types)}")
    for connection, _, data in reader.messages(connections):
        yield reader.deserialize(data, connection.msgtype)


def _stamp(message: Any) -> Stamp:
    return message.header.stamp.sec, message.header.stamp.nanosec


def _detections(reader: AnyReader, bag: Path, topic: str) -> Iterator[tuple[Stamp, Found]]:
    for message in _messages(reader, bag, topic, (DETECTIONS_TYPE,)):
        judged = [
            (detection.bbox, max(detection.results, key=lambda result: result.hypothesis.score).hypothesis)
            for detection in message.detections
            if len(detection.results)
        ]
        yield _stamp(message), Found(
            np.array([enclosing_box(bbox) for bbox, _ in judged], np.float64).reshape(-1, 4),
            np.array([best.score for _, best in judged], np.float64),
            tuple(best.class_id for _, best in judged),
        )


def enclosing_box(bbox: Any) -> tuple[float, float, float, float]:
    """The upright box, xyxy, around a vision_msgs/BoundingBox2D, which may be turned."""
    cosine, sine = abs(np.cos(bbox.center.theta)), abs(np.sin(bbox.center.theta))
    half_width = (bbox.size_x * cosine + bbox.size_y * sine) / 2
    half_height = (bbox.size_x * sine + bbox.size_y * cosine) / 2
    x, y = bbox.center.position.x, bbox.center.position.y
    return x - half_width, y - half_height, x + half_width, y + half_height


def _frames(
    reader: AnyReader, bag: Path, topic: str, found: Mapping[Stamp, Found], every: int, counts: Counts
) -> Iterator[tuple[Stamp, np.ndarray]]:
    """Every n-th of the images with detections, by stamp, one at a time."""
    seen: set[Stamp] = set()
    for message in _messages(reader, bag, topic, IMAGE_TYPES):
        stamp = _stamp(message)
        if stamp not in found:
            counts.images_without_detections += 1
        elif stamp in seen:
            counts.repeated_stamps += 1
        else:
            seen.add(stamp)
            if (len(seen) - 1) % every == 0:
                try:
                    image = _bgr(message)
                except BadImageError as error:
                    counts.undecodable_images += 1
                    counts.undecodable_because = counts.undecodable_because or str(error)
                else:
                    yield stamp, image
    counts.detections_without_image = len(found.keys() - seen)


def _write(
    frames: Iterable[tuple[Stamp, np.ndarray]],
    found: Mapping[Stamp, Found],
    names: Sequence[str],
    output: Path,
    threshold: float,
    suffix: str,
    counts: Counts,
) -> dict[str, Any]:
    """Writes the images and returns the COCO instances."""
    folder = output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for stamp, image in frames:
        name = f"{stamp[0]}_{stamp[1]:09d}{suffix}"
        if not cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise OSError(f"cannot write the image {folder / name}")
        height, width = image.shape[:2]
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        for entry in _annotations(found[stamp], names, (width, height), threshold, counts):
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), **entry})
    counts.images, counts.annotations = len(images), len(annotations)
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _bgr(message: Any) -> np.ndarray:
    frame = decode(message)
    return cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR) if frame.color == "rgb" else frame.image


def _annotations(
    found: Found, names: Sequence[str], size: tuple[int, int], threshold: float, counts: Counts
) -> Iterator[dict[str, Any]]:
    boxes = np.clip(found.boxes, 0, np.array(size * 2))
    for (x0, y0, x1, y1), score, class_id in zip(boxes.tolist(), found.scores.tolist(), found.class_ids, strict=True):
        category = _class_index(class_id, names) + 1
        if score < threshold:
            counts.below_threshold += 1
        elif x1 <= x0 or y1 <= y0:
            counts.outside += 1
        else:
            yield {
                "category_id": category,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "segmentation": [],
                "score": score,
            }


def _class_index(class_id: str, names: Sequence[str]) -> int:
    if class_id in names:
        return list(names).index(class_id)
    if class_id.isdecimal() and int(class_id) < len(names):
        return int(class_id)
    raise ClassError(f"a detection has the class id {class_id!r}, which is no name or index of {', '.join(names)}")


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.data.rosbag BAG --images TOPIC --detections TOPIC --output FOLDER`."""
    parser = argparse.ArgumentParser(prog="python -m training.data.rosbag", description=__doc__)
    parser.add_argument("bag", type=Path, help="folder of the recording, or its .mcap or .db3 file")
    parser.add_argument("--images", required=True, metavar="TOPIC", help="of sensor_msgs/Image or CompressedImage")
    parser.add_argument("--detections", required=True, metavar="TOPIC", help="of vision_msgs/Detection2DArray")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new folder to write")
    parser.add_argument("--threshold", type=float, default=0.0, help="leave out boxes with a lower score (default: 0)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th frame (default: 1)")
    parser.add_argument(
        "--classes", default="", metavar="NAME,...", help="by class index (default: the ids found, sorted)"
    )
    parser.add_argument("--format", choices=["jpg", "png"], default="jpg", help="of the images (default: jpg)")
    options = parser.parse_args(arguments)
    if options.every < 1:
        parser.error(f"--every is {options.every}; it must be at least 1")
    try:
        counts = export(
            options.bag,
            options.images,
            options.detections,
            options.output,
            classes=tuple(name.strip() for name in options.classes.split(",")) if options.classes else (),
            threshold=options.threshold,
            every=options.every,
            suffix=f".{options.format}",
        )
    except (BagError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    numbers = {name: value for name, value in asdict(counts).items() if isinstance(value, int)}
    print(f"wrote {options.output}: " + ", ".join(f"{value} {name}" for name, value in numbers.items()))
    if counts.undecodable_images:
        print(f"the first image that cannot be decoded: {counts.undecodable_because}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

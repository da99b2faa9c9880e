"""Opens rosbag2 recordings, also those of a recorder that crashed, without ROS."""

from __future__ import annotations

import sys
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose",
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}
"""The fields of vision_msgs 4 (Humble and later), for recordings that don't bring their definitions along."""


class BagError(ValueError):
    """A recording that cannot be exported; the message names it and what is wrong."""


def typestore() -> Typestore:
    """The message types that a recording without definitions is read with."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, fields in VISION_MSGS.items():
        store.register(get_types_from_msg(fields, f"vision_msgs/msg/{name}"))
    return store


def opened(bag: Path) -> AnyReader:
    """The reader of a recording, to be entered.

    Raises:
        BagError: there is none.
    """
    try:
        return AnyReader(_files(bag), default_typestore=typestore())
    except FileNotFoundError as error:
        raise BagError(f"{bag}: there is no such recording: {error}") from error


def _files(bag: Path) -> list[Path]:
    """The recording's folder, or its files where the folder has no metadata.yaml, as a crashed recorder leaves it."""
    if not bag.is_dir() or (bag / "metadata.yaml").is_file():
        return [bag]
    for suffix in (".mcap", ".db3"):
        if files := sorted(bag.glob(f"*{suffix}")):
            print(f"{bag} has no metadata.yaml, as of a crashed recorder: reading its {suffix} files", file=sys.stderr)
            return files
    raise BagError(f"{bag}: there is no such recording: it has no metadata.yaml, and no .mcap or .db3 file")


def mend(bag: Path) -> str:
    """What may help where a recording cannot be read."""
    recover = {
        ".mcap": "mcap recover {} -o whole.mcap",
        ".db3": "sqlite3 {} .recover | sqlite3 whole.db3",
    }
    for file in sorted(bag.iterdir()) if bag.is_dir() else [bag]:
        if file.suffix in recover and file.is_file():
            command = recover[file.suffix].format(file)
            return f"; if its recorder did not end well, `{command}` saves what is whole"
    return ""

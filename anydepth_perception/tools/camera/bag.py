"""A rosbag2 recording as a camera: the images of one of its topics, without a ROS distribution.

The `rosbags` package reads it (sqlite3 or MCAP); it is in the extra `bags`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2

from anydepth_perception.detection.images import BadImageError, CameraMessage, decode
from anydepth_perception.tools.camera.source_image import Source, SourceError, SourceImage, SourceOptions, resized

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_SUFFIXES = (".mcap", ".db3")


def is_bag(path: Path) -> bool:
    """Whether a path is a recording: a folder with metadata.yaml, or an .mcap or .db3 file."""
    return (path / "metadata.yaml").is_file() or (path.suffix in _SUFFIXES and path.is_file())


class BagSource(Source):
    """The images of a recording, in their order."""

    def __init__(self, path: Path, topic: str, options: SourceOptions) -> None:
        """Opens it.

        Args:
            path: see `is_bag`.
            topic: of sensor_msgs/Image or CompressedImage; empty where there is only one such topic.
            options: as for all sources.

        Raises:
            SourceError: `rosbags` is missing, the recording cannot be read, or it has no such topic.
        """
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise SourceError(f"{path}: a recording is read by the package rosbags: pip install rosbags") from error
        self._path, self._options = path, options
        try:
            self._reader: AnyReader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except Exception as error:  # of SQLite, MCAP and YAML, each in its own class
            raise SourceError(f"{path}: cannot be read as a recording: {error}") from error
        try:
            self._connections = self._choose(topic)
        except SourceError:
            self.close()
            raise
        self._images = self._decoded()
        self._any_read = False

    @property
    def rate_hz(self) -> float | None:
        """Images a second when it was recorded; None where that cannot be told."""
        count = sum(connection.msgcount for connection in self._connections)
        seconds = self._reader.duration * 1e-9
        return (count - 1) / seconds if count > 1 and seconds > 0.0 else None

    def read(self) -> SourceImage | None:
        """The next image that can be decoded; the others are passed over."""
        image = next(self._images, None)
        if image is None and self._options.loop and self._any_read:
            self._images = self._decoded()
            image = next(self._images, None)
        if image is None and not self._any_read:
            raise SourceError(f"{self._path}: none of its images can be decoded")
        self._any_read = True
        return image

    def close(self) -> None:
        """Closes the recording."""
        with contextlib.suppress(Exception):
            self._reader.close()

    def _choose(self, topic: str) -> list[Connection]:
        of_images = [each for each in self._reader.connections if each.msgtype in _IMAGE_TYPES]
        images = sorted({each.topic for each in of_images})
        if not images:
            topics = ", ".join(sorted(self._reader.topics)) or "none"
            raise SourceError(f"{self._path}: has no topic of sensor_msgs/Image or CompressedImage; it has {topics}")
        if not topic and len(images) > 1:
            raise SourceError(f"{self._path}: has several image topics, name one with --bag-topic: {', '.join(images)}")
        connections = [each for each in of_images if each.topic == (topic or images[0])]
        if not connections:
            raise SourceError(f"{self._path}: has no image topic {topic!r}; it has {', '.join(images)}")
        return connections

    def _decoded(self) -> Iterator[SourceImage]:
        try:
            for connection, _, data in self._reader.messages(self._connections):
                try:
                    frame = decode(cast(CameraMessage, self._reader.deserialize(data, connection.msgtype)))
                except BadImageError:
                    continue
                pixels = cv2.cvtColor(frame.image, cv2.COLOR_GRAY2BGR) if frame.color == "mono" else frame.image
                yield resized(pixels, "rgb8" if frame.color == "rgb" else "bgr8", self._options)
        except (OSError, ValueError, LookupError, RuntimeError) as error:
            raise SourceError(f"{self._path}: damaged: {error}") from error

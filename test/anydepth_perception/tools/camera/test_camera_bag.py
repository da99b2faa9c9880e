"""A recording as the camera's source, written by the `rosbags` package as `ros2 bag record` would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from anydepth_perception.tools.camera.source_image import Source, SourceError, SourceOptions
from anydepth_perception.tools.camera.sources import open_source

STORE = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, COMPRESSED, STRING = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
PERIOD_NS = 50_000_000


def header(index: int) -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](sec=1, nanosec=index * PERIOD_NS)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="camera")


def image(index: int, encoding: str = "rgb8") -> Any:
    pixels = np.full((24, 32, 1 if encoding == "mono8" else 3), (index + 1) * 10, np.uint8)
    return STORE.types[IMAGE](
        header=header(index), height=24, width=32, encoding=encoding, is_bigendian=0, step=pixels[0].size,
        data=pixels.reshape(-1),
    )


def compressed(index: int) -> Any:
    data = cv2.imencode(".png", np.full((24, 32, 3), (index + 1) * 10, np.uint8))[1]
    return STORE.types[COMPRESSED](header=header(index), format="png", data=data.reshape(-1))


def record(
    path: Path, messages: dict[str, tuple[str, list[Any]]], storage: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, (kind, contents) in messages.items():
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for index, message in enumerate(contents):
                writer.write(connection, 10**9 + index * PERIOD_NS, STORE.serialize_cdr(message, kind))
    return path


def levels(source: Source, count: int) -> list[int | None]:
    images = [source.read() for _ in range(count)]
    source.close()
    return [None if found is None else int(found.pixels[12, 16, 0]) for found in images]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_images_come_in_their_order_at_the_rate_of_the_recording(tmp_path: Path, storage: StoragePlugin) -> None:
    bag = record(tmp_path / "bag", {"/image": (IMAGE, [image(0), image(1), image(2)])}, storage)
    source = open_source(str(bag), SourceOptions())
    assert source.rate_hz == pytest.approx(20.0, rel=0.01)
    assert levels(source, 4) == [10, 20, 30, None]
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    assert levels(open_source(str(file), SourceOptions()), 4) == [10, 20, 30, None]


def test_loop_starts_again_and_a_size_is_followed(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", {"/image/compressed": (COMPRESSED, [compressed(0), compressed(1)])})
    source = open_source(str(bag), SourceOptions(width=64, height=48, loop=True))
    found = source.read()
    assert found is not None and found.pixels.shape == (48, 64, 3)
    assert levels(source, 3) == [20, 10, 20]


def test_grey_images_and_those_that_cannot_be_decoded(tmp_path: Path) -> None:
    broken = image(1)
    broken.step = 3
    bag = record(tmp_path / "bag", {"/image": (IMAGE, [image(0, "mono8"), broken, image(2)])})
    assert levels(open_source(str(bag), SourceOptions()), 3) == [10, 30, None]
    nothing = record(tmp_path / "nothing", {"/image": (IMAGE, [broken])})
    with pytest.raises(SourceError, match="none of its images can be decoded"):
        open_source(str(nothing), SourceOptions(loop=True)).read()


def test_one_of_several_topics_is_asked_for(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", {"/left": (IMAGE, [image(0)]), "/right": (IMAGE, [image(4)])})
    with pytest.raises(SourceError, match="name one with --bag-topic: /left, /right"):
        open_source(str(bag), SourceOptions())
    with pytest.raises(SourceError, match="no image topic '/front'; it has /left, /right"):
        open_source(str(bag), SourceOptions(bag_topic="/front"))
    assert levels(open_source(str(bag), SourceOptions(bag_topic="/right")), 2) == [50, None]


def test_a_recording_without_images_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    words = record(tmp_path / "words", {"/chatter": (STRING, [STORE.types[STRING](data="hello")])})
    with pytest.raises(SourceError, match="no topic of sensor_msgs/Image or CompressedImage; it has /chatter"):
        open_source(str(words), SourceOptions())
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match="cannot be read as a recording"):
        open_source(str(damaged), SourceOptions())


def test_without_rosbags_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = record(tmp_path / "bag", {"/image": (IMAGE, [image(0)])})
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(SourceError, match="pip install rosbags"):
        open_source(str(bag), SourceOptions())

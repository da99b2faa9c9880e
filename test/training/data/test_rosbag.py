"""Export of a recording: frames and detections by stamp, scores, classes, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from training.data.coco import CocoData
from training.data.recording import BagError, typestore
from training.data.rosbag import enclosing_box, export, main

STORE = typestore()
IMAGES, DETECTIONS = "/camera/image", "/detections"
Box = tuple[float, float, float, float]


def make(name: str, **fields: Any) -> Any:
    package, kind = name.split("/")
    return STORE.types[f"{package}/msg/{kind}"](**fields)


def header(stamp: int) -> Any:
    return make("std_msgs/Header", stamp=make("builtin_interfaces/Time", sec=7, nanosec=stamp), frame_id="camera")


def picture(value: int) -> np.ndarray:
    return np.full((24, 32, 3), (value, 2 * value, 3 * value), np.uint8)


def image(stamp: int, value: int = 20) -> Any:
    pixels = picture(value)
    return make(
        "sensor_msgs/Image", header=header(stamp), height=24, width=32, encoding="rgb8", is_bigendian=0, step=96,
        data=pixels.reshape(-1),
    )


def compressed(stamp: int, content: bytes | None = None) -> Any:
    data = cv2.imencode(".png", picture(20)[..., ::-1])[1] if content is None else np.frombuffer(content, np.uint8)
    return make("sensor_msgs/CompressedImage", header=header(stamp), format="png", data=data)


def bounding_box(box: Box, theta: float = 0.0) -> Any:
    x, y, width, height = box
    center = make("vision_msgs/Pose2D", position=make("vision_msgs/Point2D", x=x, y=y), theta=theta)
    return make("vision_msgs/BoundingBox2D", center=center, size_x=width, size_y=height)


def hypothesis(class_id: str, score: float) -> Any:
    point, turn = make("geometry_msgs/Point", x=0, y=0, z=0), make("geometry_msgs/Quaternion", x=0, y=0, z=0, w=1)
    pose = make("geometry_msgs/Pose", position=point, orientation=turn)
    return make(
        "vision_msgs/ObjectHypothesisWithPose",
        hypothesis=make("vision_msgs/ObjectHypothesis", class_id=class_id, score=score),
        pose=make("geometry_msgs/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
    )


def detections(stamp: int, *found: tuple[Box, Sequence[tuple[str, float]]]) -> Any:
    """Boxes by centre and size, each with its hypotheses."""
    entries = [
        make(
            "vision_msgs/Detection2D", header=header(stamp), id="", bbox=bounding_box(box),
            results=[hypothesis(*one) for one in results],
        )
        for box, results in found
    ]
    return make("vision_msgs/Detection2DArray", header=header(stamp), detections=entries)


def record(
    folder: Path, messages: Sequence[Any], plugin: StoragePlugin = StoragePlugin.MCAP, version: int = 9
) -> Path:
    """A recording of images and detections, in the order given; arrival comes after the stamps."""
    path = folder / "bag"
    with Writer(path, version=version, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for place, message in enumerate(messages):
            topic = DETECTIONS if "Detection2DArray" in message.__msgtype__ else IMAGES
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
            data = STORE.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], 10**9 * (1 + place), data)
    return path


BOX: Box = (10, 12, 8, 4)
ONE = detections(1, (BOX, [("pallet", 0.75)]))


def exported(folder: Path, bag: Path, **options: Any) -> tuple[dict[str, Any], Any]:
    counts = export(bag, IMAGES, DETECTIONS, folder / "out", **options)
    return json.loads((folder / "out" / "instances.json").read_text()), counts


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_frame_with_detections_is_read_back_as_it_was_recorded(tmp_path: Path, plugin: StoragePlugin) -> None:
    bag = record(tmp_path, [image(1), ONE], plugin)
    _, counts = exported(tmp_path, bag, suffix=".png")
    data = CocoData(tmp_path / "out" / "instances.json", tmp_path / "out" / "images")
    read = data.read(0)
    assert np.array_equal(read.image, picture(20))
    assert read.boxes.tolist() == [[6, 10, 14, 14]]
    assert data.class_names == ("pallet",)
    assert (counts.images, counts.annotations) == (1, 1)


def test_a_recording_without_message_definitions_is_read(tmp_path: Path) -> None:
    import sqlite3

    bag = record(tmp_path, [image(1), ONE], StoragePlugin.SQLITE3, version=8)
    (database,) = bag.glob("*.db3")
    with sqlite3.connect(database) as connection:  # as Humble writes it
        connection.execute("DELETE FROM message_definitions")
    content, _ = exported(tmp_path, bag)
    assert len(content["annotations"]) == 1


def test_a_compressed_image_is_read(tmp_path: Path) -> None:
    exported(tmp_path, record(tmp_path, [compressed(1), ONE]), suffix=".png")
    data = CocoData(tmp_path / "out" / "instances.json", tmp_path / "out" / "images")
    assert np.array_equal(data.read(0).image, picture(20))


def test_images_and_detections_belong_together_by_stamp_whatever_the_order(tmp_path: Path) -> None:
    second = detections(2, ((20, 6, 2, 2), [("person", 0.5)]))
    bag = record(tmp_path, [second, image(1, 20), image(3, 60), image(2, 40), ONE, detections(9)])
    content, counts = exported(tmp_path, bag, suffix=".png")
    assert [entry["file_name"] for entry in content["images"]] == ["7_000000001.png", "7_000000002.png"]
    assert [(entry["image_id"], entry["category_id"]) for entry in content["annotations"]] == [(1, 1), (2, 2)]
    assert [entry["name"] for entry in content["categories"]] == ["pallet", "person"]
    assert (counts.images_without_detections, counts.detections_without_image) == (1, 1)


def test_a_frame_in_which_nothing_was_found_is_an_image_without_objects(tmp_path: Path) -> None:
    content, _ = exported(tmp_path, record(tmp_path, [image(1), image(2), ONE, detections(2)]))
    assert len(content["images"]) == 2 and len(content["annotations"]) == 1


def test_scores_are_kept_and_boxes_below_the_threshold_left_out(tmp_path: Path) -> None:
    message = detections(1, (BOX, [("pallet", 0.75)]), (BOX, [("pallet", 0.25)]))
    content, counts = exported(tmp_path, record(tmp_path, [image(1), message]), threshold=0.5)
    assert [entry["score"] for entry in content["annotations"]] == [0.75]
    assert counts.below_threshold == 1


def test_the_best_hypothesis_counts_and_a_detection_without_one_does_not(tmp_path: Path) -> None:
    message = detections(1, (BOX, [("pallet", 0.2), ("person", 0.7)]), (BOX, []))
    content, _ = exported(tmp_path, record(tmp_path, [image(1), message]))
    assert [entry["name"] for entry in content["categories"]] == ["person"]
    assert [entry["score"] for entry in content["annotations"]] == [0.7]


@pytest.mark.parametrize("class_id", ["pallet", "1"])
def test_given_classes_take_names_and_indices(tmp_path: Path, class_id: str) -> None:
    bag = record(tmp_path, [image(1), detections(1, (BOX, [(class_id, 0.5)]))])
    content, _ = exported(tmp_path, bag, classes=("person", "pallet", "cone"))
    assert [entry["name"] for entry in content["categories"]] == ["person", "pallet", "cone"]
    assert [entry["category_id"] for entry in content["annotations"]] == [2]


@pytest.mark.parametrize("class_id", ["robot", "3"])
def test_a_class_that_is_not_given_is_named(tmp_path: Path, class_id: str) -> None:
    bag = record(tmp_path, [image(1), detections(1, (BOX, [(class_id, 0.5)]))])
    with pytest.raises(BagError, match=f"bag: .*class id '{class_id}', which is no name or index of person, pallet"):
        exported(tmp_path, bag, classes=("person", "pallet", "cone"))


def test_boxes_are_cut_to_the_image_and_left_out_where_nothing_is_left(tmp_path: Path) -> None:
    message = detections(1, ((0, 0, 8, 8), [("a", 0.5)]), ((50, 50, 4, 4), [("a", 0.5)]), ((9, 9, 0, 4), [("a", 0.5)]))
    content, counts = exported(tmp_path, record(tmp_path, [image(1), message]))
    assert [entry["bbox"] for entry in content["annotations"]] == [[0, 0, 4, 4]]
    assert counts.outside == 2


def test_a_turned_box_becomes_the_upright_one_around_it() -> None:
    assert enclosing_box(bounding_box((10, 10, 8, 4), np.pi / 2)) == pytest.approx((8, 6, 12, 14))
    half = (8 + 4) / 2 / np.sqrt(2)
    turned = enclosing_box(bounding_box((10, 10, 8, 4), -np.pi / 4))
    assert turned == pytest.approx((10 - half, 10 - half, 10 + half, 10 + half))


def test_every_other_frame_is_taken_where_asked(tmp_path: Path) -> None:
    messages = [message for stamp in range(5) for message in (image(stamp), detections(stamp))]
    content, counts = exported(tmp_path, record(tmp_path, messages), every=2)
    assert [entry["file_name"][-5] for entry in content["images"]] == ["0", "2", "4"]
    assert counts.detections_without_image == 0


def test_repeated_stamps_and_images_that_cannot_be_decoded_are_counted(tmp_path: Path) -> None:
    bag = record(tmp_path, [compressed(1), compressed(1), compressed(2, b"broken"), ONE, detections(2)])
    content, counts = exported(tmp_path, bag)
    assert len(content["images"]) == 1
    assert (counts.repeated_stamps, counts.undecodable_images) == (1, 1)


def test_a_recording_without_frames_that_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"no image of /camera/image has the stamp .*1 other images, 1 detections"):
        exported(tmp_path, record(tmp_path, [image(2), ONE]))


@pytest.mark.parametrize(
    ("images", "found", "reason"),
    [
        ("/other", DETECTIONS, r"no topic '/other'; it has /camera/image \(sensor_msgs/msg/Image\), /detections"),
        (DETECTIONS, DETECTIONS, "/detections is of type vision_msgs/msg/Detection2DArray, expected sensor_msgs"),
        (IMAGES, IMAGES, "/camera/image is of type sensor_msgs/msg/Image, expected vision_msgs"),
    ],
)
def test_a_wrong_topic_is_named(tmp_path: Path, images: str, found: str, reason: str) -> None:
    with pytest.raises(BagError, match=reason):
        export(record(tmp_path, [image(1), ONE]), images, found, tmp_path / "out")


BOTH = pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])


@BOTH
def test_a_recording_without_metadata_is_read_from_its_files(tmp_path: Path, plugin: StoragePlugin) -> None:
    bag = record(tmp_path, [image(1), ONE], plugin)
    (bag / "metadata.yaml").unlink()
    content, _ = exported(tmp_path, bag)
    assert (len(content["images"]), len(content["annotations"])) == (1, 1)


def test_a_folder_with_neither_metadata_nor_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match=r"it has no metadata\.yaml, and no \.mcap or \.db3 file"):
        exported(tmp_path, tmp_path / "bag")


@BOTH
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_cut_off_recording_is_refused_with_the_command_that_saves_it(
    tmp_path: Path, plugin: StoragePlugin, kept: float
) -> None:
    file = next(record(tmp_path, [image(1), ONE], plugin).glob("bag.*"))
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    command = r"mcap recover .*bag\.mcap" if plugin is StoragePlugin.MCAP else r"sqlite3 .*bag\.db3 \.recover"
    for given in (file.parent, file):
        with pytest.raises(BagError, match=command):
            exported(tmp_path, given)


@pytest.mark.parametrize(("classes", "what"), [("a,,pallet", "is empty"), ("a,pallet,a", "stands there twice")])
def test_empty_and_double_classes_are_refused_before_anything_is_written(
    tmp_path: Path, classes: str, what: str, capsys: pytest.CaptureFixture
) -> None:
    bag = record(tmp_path, [image(1), ONE])
    options = ["--images", IMAGES, "--detections", DETECTIONS, "--output", str(tmp_path / "out"), "--classes", classes]
    assert main([str(bag), *options]) == 1
    assert what in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_detection_of_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="class 0 of '' is empty; give other --classes"):
        exported(tmp_path, record(tmp_path, [image(1), detections(1, (BOX, [("", 0.5)]))]))


def test_why_an_image_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    bag = record(tmp_path, [compressed(1), compressed(2, b"broken"), ONE, detections(2)])
    _, counts = exported(tmp_path, bag)
    assert counts.undecodable_because
    bag = record(tmp_path / "none", [compressed(2, b"broken"), detections(2)])
    with pytest.raises(BagError, match=r"1 images that cannot be decoded: .+\)"):
        exported(tmp_path / "none", bag)


@pytest.mark.parametrize("name", ["absent", "wrong.mcap", "wrong.db3", "wrong.txt", "."])
def test_what_is_no_recording_is_named(tmp_path: Path, name: str) -> None:
    if name.startswith("wrong"):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(BagError, match=str(tmp_path / name)):
        export(tmp_path / name, IMAGES, DETECTIONS, tmp_path / "out")


def test_a_folder_with_something_in_it_is_not_written_into(tmp_path: Path) -> None:
    bag = record(tmp_path, [image(1), ONE])
    with pytest.raises(BagError, match="is there already"):
        export(bag, IMAGES, DETECTIONS, tmp_path)


def test_the_command_exports_and_tells_its_counts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bag = record(tmp_path, [image(1), ONE])
    options = ["--images", IMAGES, "--detections", DETECTIONS, "--output", str(tmp_path / "out")]
    assert main([str(bag), *options, "--classes", "person,pallet", "--threshold", "0.9"]) == 0
    assert "1 images, 0 annotations" in capsys.readouterr().out
    assert main([str(bag), *options]) == 1
    assert "is there already" in capsys.readouterr().err

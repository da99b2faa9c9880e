"""The camera executable: images with truth over DDS, start and stop, its end, and sources it cannot read."""

from __future__ import annotations

import pytest
from ros_processes import BEST_EFFORT, RELIABLE, Observer, key_of
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from anydepth_perception.aisle import CLASS_NAMES

CAMERA = ("-m", "anydepth_perception.tools.camera")
SMALL = ("--width", "160", "--height", "120", "--rate", "30")


@pytest.fixture
def camera_observer():
    observer = Observer("/camera")
    yield observer
    observer.close()


def enable(observer: Observer, data: bool) -> SetBool.Response:
    return observer.call(SetBool, "enable", SetBool.Request(data=data))


def test_images_and_truth_have_the_same_headers_and_the_service_starts_and_stops(start, camera_observer):
    observer = camera_observer
    images = observer.collect(Image, "image_raw", BEST_EFFORT)
    compressed = observer.collect(CompressedImage, "image_raw/compressed", BEST_EFFORT)
    truths = observer.collect(Detection2DArray, "ground_truth", RELIABLE)
    camera = start(*CAMERA, *SMALL, "--ground-truth", "--compressed", "--paused", "--frame-id", "front")
    for topic in ("/image_raw", "/image_raw/compressed", "/ground_truth"):
        observer.wait_for_publisher(topic)
    assert not images and not truths
    assert enable(observer, True).success
    observer.spin_until(lambda: min(map(len, (images, compressed, truths))) >= 10, "10 images with truth")
    assert enable(observer, False).success
    answer = enable(observer, False).message
    observer.spin_until(lambda: f"after {len(truths)} images" in answer, "the truth of all images")
    truth_keys = {key_of(message.header) for message in truths}
    assert {key_of(message.header) for message in [*images, *compressed]} <= truth_keys
    assert (images[0].width, images[0].height, images[0].encoding) == (160, 120, "rgb8")
    assert images[0].header.frame_id == "front"
    names = {detection.results[0].hypothesis.class_id for message in truths for detection in message.detections}
    assert names <= {*CLASS_NAMES, "ignore"} and names & set(CLASS_NAMES)
    camera.end()
    assert answer.split()[-2] in camera.log()


def test_camera_ends_by_itself_after_the_asked_frames(start):
    camera = start(*CAMERA, *SMALL, "--frames", "3")
    assert camera.wait() == 0
    assert "published 3 images" in camera.log()


def test_a_camera_that_waits_loses_no_image_of_a_short_source(start, camera_observer):
    camera = start(*CAMERA, *SMALL, "--frames", "5", "--wait", "--qos", "reliable")
    camera.wait_for_log("running")
    images = camera_observer.collect(Image, "image_raw", RELIABLE)
    camera_observer.spin_until(lambda: len(images) >= 5, "all five images")
    assert camera.wait() == 0


def test_ros_arguments_that_cannot_be_read_are_an_error_of_one_line(start):
    camera = start(*CAMERA, "--ros-args", "-p", "nonsense")
    assert camera.wait() == 1
    assert "Traceback" not in camera.log()
    assert "nonsense" in camera.log()


def test_sigint_ends_a_camera_that_still_renders_its_clip(start):
    camera = start(*CAMERA, *SMALL, "--prerender", "3600")
    camera.wait_for_log("rendering 3600 s")
    camera.end()


@pytest.mark.parametrize(
    ("source", "words"),
    [("/nowhere/video.mp4", "/nowhere/video.mp4: no such file"), ("/dev/video987", "/dev/video987: no such device")],
)
def test_source_that_cannot_be_read_is_an_error_of_one_line(start, source, words):
    camera = start(*CAMERA, "--source", source)
    assert camera.wait() == 1
    (line,) = camera.log().strip().splitlines()
    assert line.startswith("error: ") and words in line


def test_source_that_fails_later_ends_the_camera_with_exit_code_1(start, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"broken")
    camera = start(*CAMERA, "--source", str(tmp_path))
    assert camera.wait() == 1
    assert "none of its 2 images can be read" in camera.log() and "Traceback" not in camera.log()


def test_option_out_of_range_names_what_is_accepted(start):
    camera = start(*CAMERA, "--rate", "-3")
    assert camera.wait() == 2
    assert "--rate: -3 is not a number in (0, 1000]" in camera.log()

"""Frames through the detector over DDS: every header back, bad frames survived, results for whoever subscribes."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_processes import RELIABLE, Observer, image_message, key_of, stamped, values_of
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from anydepth_perception.ros.diagnostics import WARNING_INTERVAL_S

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def served(observer: Observer) -> dict[str, str]:
    """Values of the newest diagnostics."""
    return values_of(observer.status(lambda status, values: values["state"] == "active", "an active node"))


@pytest.fixture(scope="module")
def detector(module_start, node_arguments):
    """A detector that all tests of this module share, with a reliable image subscription so that none gets lost."""
    return module_start(*node_arguments(image_qos="reliable", score_threshold=0.0))


@pytest.fixture(scope="module")
def active(detector):
    """One observer for all tests of this module: each would have to find the detector anew."""
    observer = Observer()
    observer.wait_for_state("active")
    yield observer
    observer.close()


def test_every_header_comes_back_once_also_without_objects(active):
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")
    images = active.publisher(Image, "image_raw", RELIABLE)
    sent = []
    for threshold in (0.0, 1.0):
        assert active.set_parameter("score_threshold", threshold).successful
        for _ in range(60):
            sent.append(stamped(len(sent), frame_id=f"camera_{len(sent) % 3}"))
            images.publish(image_message(sent[-1], seed=len(sent)))
            active.spin_until(lambda: len(detections) >= len(sent), f"detections of frame {len(sent)}")
    assert Counter(key_of(message.header) for message in detections) == Counter(key_of(header) for header in sent)
    for message in detections:
        assert all(detection.header == message.header for detection in message.detections)
    assert all(message.detections for message in detections[:60])
    assert not any(message.detections for message in detections[60:])


def test_of_a_burst_the_newest_frames_are_served_and_the_others_counted(active):
    before = served(active)
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")
    images = active.publisher(Image, "image_raw", RELIABLE)
    sent = [stamped(index) for index in range(100)]
    for index, header in enumerate(sent):
        images.publish(image_message(header, seed=index))

    def gained(values: dict[str, str], name: str) -> int:
        return int(values[f"frames_{name}"]) - int(before[f"frames_{name}"])

    def settled(status: DiagnosticStatus, values: dict[str, str]) -> bool:
        dealt_with = gained(values, "served") + gained(values, "replaced")
        return dealt_with == gained(values, "received") > 0 and has_come_back(sent[-1], detections)

    values = values_of(active.status(settled, "all frames of the burst served or replaced"))
    active.spin_until(lambda: len(detections) >= gained(values, "served"), "the detections of all served frames")
    assert len(detections) == gained(values, "served")
    back = [key_of(message.header) for message in detections]
    assert len(set(back)) == len(back) and set(back) <= {key_of(header) for header in sent}
    assert back == sorted(back)


def has_bad_frames(status: DiagnosticStatus, values: dict[str, str], number: int) -> bool:
    """Whether diagnostics count so many bad frames, and warn of the newest as nothing has been served since."""
    counted = int(values["frames_bad"]) == number
    return counted and status.level == DiagnosticStatus.WARN and "are refused" in status.message


def has_come_back(header: Header, detections: list[Detection2DArray]) -> bool:
    """Whether detections with that header came."""
    return any(key_of(message.header) == key_of(header) for message in detections)


def bad_images(index: int) -> dict[str, Image]:
    """Messages with one fault each."""
    images = {kind: image_message(stamped(index)) for kind in ("encoding", "step", "data", "size", "header")}
    images["encoding"].encoding = "rgb9"
    images["step"].step = 17
    images["data"].data = images["data"].data[:100]
    images["size"].width = images["size"].height = 0
    images["header"].header.frame_id = "x" * 100_000
    return images


def test_bad_frames_are_counted_warned_of_once_and_the_next_good_one_is_served(active, detector):
    before = int(served(active)["frames_bad"])
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")
    images = active.publisher(Image, "image_raw", RELIABLE)
    started_s = time.monotonic()
    faults = [*bad_images(0).items(), *list(bad_images(0).items())[:2]]
    for number, (kind, message) in enumerate(faults, 1):
        images.publish(message)
        active.status(partial(has_bad_frames, number=before + number), f"bad frame: {kind}")
        good = stamped(number)
        images.publish(image_message(good))
        active.spin_until(partial(has_come_back, good, detections), f"the frame after {kind}")
    due = 1 + int((time.monotonic() - started_s) / WARNING_INTERVAL_S)
    warnings = [line for line in detector.log().splitlines() if "bad frame on /image_raw" in line]
    for words in (
        "encoding 'rgb9' is not supported; supported are rgb8",
        "step 17 is too small",
        "data holds 100 bytes",
        "image is empty",
        "frame_id has 100000 characters, at most 256",
    ):
        assert 1 <= len([line for line in warnings if words in line]) <= due


def test_frame_without_a_stamp_is_served_and_counted(active):
    before = int(served(active)["frames_unstamped"])
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")
    images = active.publisher(Image, "image_raw", RELIABLE)
    images.publish(image_message(Header(frame_id="no clock")))
    active.spin_until(lambda: detections, "detections of the frame without a stamp")
    assert detections[0].header == Header(frame_id="no clock")
    active.status(lambda status, values: int(values["frames_unstamped"]) == before + 1, "the frame counted")


def test_label_info_is_there_for_who_joins_late(active):
    infos = active.collect(LabelInfo, "label_info", LATCHED)
    active.spin_until(lambda: infos, "label_info")
    assert [entry.class_name for entry in infos[0].class_map] == ["person", "crate", "cone"]


def test_debug_image_and_frame_reports_come_once_subscribed(active):
    debug_images = active.collect(Image, "debug_image")
    reports = active.collect(DiagnosticStatus, "/detector/frames")
    images = active.publisher(Image, "image_raw", RELIABLE)
    sent = []

    def both_came() -> bool:
        sent.append(stamped(len(sent)))
        images.publish(image_message(sent[-1]))
        return bool(debug_images and reports)

    active.spin_until(both_came, "a debug image and a report")
    headers = {key_of(header) for header in sent}
    assert key_of(debug_images[0].header) in headers
    assert (debug_images[0].width, debug_images[0].height, debug_images[0].encoding) == (160, 120, "rgb8")
    values = values_of(reports[0])
    assert (values["frame_id"], reports[0].name) == ("camera", "/image_raw")
    assert float(values["latency_ms"]) >= float(values["inference_ms"]) > 0.0


def test_diagnostics_tell_the_load_of_each_cpu(active):
    values = values_of(active.status(lambda status, values: "cpu_core_percent" in values, "the load of each CPU"))
    assert all(0 <= int(percent) <= 100 for percent in values["cpu_core_percent"].split())
    assert 0.0 <= float(values["cpu_own_percent"]) <= 100.0


def test_shared_detector_ends_at_once_on_sigint(active, detector):
    active.publisher(Image, "image_raw", RELIABLE).publish(image_message(stamped(0)))
    detector.end()

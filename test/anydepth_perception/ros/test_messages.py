"""Messages made of detections, reports and truth; needs the ROS message packages."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Header

from anydepth_perception.detection.detector import Detections
from anydepth_perception.detection.images import Frame
from anydepth_perception.ros.camera import output_prefixes, usable_age_s
from anydepth_perception.ros.diagnostics import Health, WarningThrottle, clock_health, frame_values, worst
from anydepth_perception.ros.messages import DetectionMessages, annotate, class_ids, frame_status, label_info
from anydepth_perception.serving.scheduler import Budget, CountedAge
from anydepth_perception.serving.statistics import FrameReport, FrameStatistics

NAMES = ("person", "crate", "cone")


def header() -> Header:
    return Header(stamp=Time(sec=7, nanosec=5), frame_id="camera")


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def test_box_becomes_centre_and_full_size_in_pixels():
    message = DetectionMessages(NAMES).fill(header(), detections((10, 20, 30, 60, 0.75, 1)))
    (detection,) = message.detections
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (20.0, 40.0)
    assert (detection.bbox.size_x, detection.bbox.size_y, detection.bbox.center.theta) == (20.0, 40.0, 0.0)
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("crate", 0.75)
    assert detection.id == ""


def test_header_is_copied_to_the_array_and_each_detection():
    message = DetectionMessages(NAMES).fill(header(), detections((0, 0, 1, 1, 0.5, 0), (0, 0, 2, 2, 0.5, 1)))
    assert [message.header, *(detection.header for detection in message.detections)] == [header()] * 3


def test_no_detections_make_an_empty_array_with_the_header():
    message = DetectionMessages(NAMES).fill(header(), detections())
    assert message.detections == [] and message.header == header()


def test_nothing_of_a_message_is_left_in_the_next():
    messages = DetectionMessages(NAMES)
    messages.fill(header(), detections((0, 0, 1, 1, 0.5, 0), (0, 0, 2, 2, 0.5, 1)))
    later = Header(stamp=Time(sec=8), frame_id="other")
    message = messages.fill(later, detections((4, 4, 8, 8, 0.25, 2)))
    (detection,) = message.detections
    assert detection.header == later and message.header == later
    assert detection.results[0].hypothesis.class_id == "cone" and detection.bbox.center.position.x == 6.0


def test_class_id_is_the_name_or_the_index():
    assert class_ids(NAMES, "name") == NAMES
    assert class_ids(NAMES, "index") == ("0", "1", "2")


def test_label_info_maps_indices_to_names():
    message = label_info(NAMES, 0.25, Time(sec=3))
    assert {entry.class_id: entry.class_name for entry in message.class_map} == dict(enumerate(NAMES))
    assert message.threshold == 0.25 and message.header.stamp.sec == 3


def test_frame_status_holds_the_report_and_warns_of_a_miss():
    report = FrameReport("FFEE.FFEE", 2, 51.5, 3.0, 1.0, 40.0, 2.0, 50.0)
    status = frame_status("/image_raw", header(), report)
    values = {item.key: item.value for item in status.values}
    assert status.level == DiagnosticStatus.WARN and status.name == "/image_raw"
    assert values["stamp"] == "7.000000005" and values["depth"] == "FFEE.FFEE"
    assert (values["latency_ms"], values["missed"]) == ("51.500", "true")


@pytest.mark.parametrize(("color", "encoding", "shape"), [("rgb", "rgb8", (40, 60, 3)), ("mono", "rgb8", (40, 60)),
                                                          ("bgr", "bgr8", (40, 60, 3))])
def test_annotation_draws_on_a_copy(color, encoding, shape):
    image = np.zeros(shape, np.uint8)
    image.flags.writeable = False
    canvas, canvas_encoding = annotate(Frame(image, color), detections((5, 5, 30, 30, 0.9, 1)), NAMES, "full")
    assert canvas_encoding == encoding and canvas.shape == (40, 60, 3)
    assert canvas[5, 10].any() and not image.any()


def test_miss_percent_counts_dropped_frames_as_missed():
    statistics = FrameStatistics()
    for latency_ms in (10.0, 10.0, 90.0):
        statistics.served(FrameReport("FFFF.FFFF", 0, latency_ms, 1, 1, 1, 1, 50.0), 1.0)
    statistics.count("dropped")
    values = frame_values(statistics.summary(1.5))
    assert values["miss_percent"] == 50.0 and values["frames_dropped"] == 1


def test_stamps_older_than_scheduling_believes_are_a_warning_with_both_figures():
    health = clock_health("/left/image_raw", CountedAge(5.02, 0.09))
    assert health.level == DiagnosticStatus.WARN and "\n" not in health.reason
    assert "stamps of /left/image_raw are 5.0 s old; scheduling counts at most 90 ms" in health.reason
    assert clock_health("/left/image_raw", None) is None


def test_frame_status_holds_both_budgets_and_nothing_where_there_is_none():
    report = FrameReport("FFEE.FFEE", 2, 51.5, 3.0, 1.0, 40.0, 2.0, 0.0, Budget(None, 25.0))
    values = {item.key: item.value for item in frame_status("/image_raw", header(), report).values}
    assert (values["budget_ms"], values["shared_budget_ms"]) == ("", "25.000")


def test_frames_that_had_less_time_for_the_sake_of_others_are_counted():
    statistics = FrameStatistics()
    for budget in (Budget(50.0, 25.0), Budget(50.0, 60.0), Budget(50.0, None)):
        statistics.served(FrameReport("FFFF.FFFF", 0, 40.0, 1, 1, 1, 1, 50.0, budget), 1.0)
    assert frame_values(statistics.summary(1.5))["frames_shared"] == 1


def test_worst_health_names_all_that_is_not_well():
    ok, warn = Health(DiagnosticStatus.OK, "active"), Health(DiagnosticStatus.WARN, "no image")
    error = Health(DiagnosticStatus.ERROR, "incompatible")
    assert worst([ok, ok]) == ok
    assert worst([ok, warn, error]) == Health(DiagnosticStatus.ERROR, "no image; incompatible")


def test_warning_of_a_kind_comes_once_in_ten_seconds():
    throttle = WarningThrottle()
    given = [throttle.allows("step", now_s) for now_s in (0.0, 5.0, 9.9, 10.0, 15.0)]
    assert given == [True, False, False, True, False]
    assert throttle.allows("encoding", 15.0)


@pytest.mark.parametrize(
    ("stamp_ns", "now_ns", "age_s"),
    [
        (0, 5, None),
        (10, 5, None),
        (1_000_000_000, 1_020_000_000, pytest.approx(0.02)),
        (1_000_000_000, 11_000_000_000, pytest.approx(10.0)),
        (1_000_000_000, 11_000_000_001, None),
    ],
)
def test_stamp_unset_ahead_or_older_than_ten_seconds_gives_no_age(stamp_ns, now_ns, age_s):
    assert usable_age_s(stamp_ns, now_ns) == age_s


@pytest.mark.parametrize(
    ("topics", "prefixes"),
    [
        (["image_raw"], [""]),
        (["/front/image_raw"], [""]),
        (["left/image_raw", "/right/image"], ["left/", "/right/"]),
        (["left", "right"], ["left/", "right/"]),
        (["cam/left", "cam/right"], ["cam/left/", "cam/right/"]),
    ],
)
def test_outputs_of_several_cameras_get_a_namespace_each(topics, prefixes):
    assert output_prefixes(topics) == prefixes

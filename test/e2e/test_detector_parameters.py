"""Parameters of the running detector: live depth, refused values, descriptors."""

from __future__ import annotations

import math

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterValue
from ros_processes import RELIABLE, Observer, image_message, stamped, values_of
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from anydepth_perception.serving.settings import DEFAULTS, TABLE


@pytest.fixture(scope="module")
def detector(module_start, node_arguments):
    """A detector that all tests of this module share."""
    return module_start(*node_arguments(image_qos="reliable"))


@pytest.fixture(scope="module")
def active(detector):
    """One observer for all tests of this module: each would have to find the detector anew."""
    observer = Observer()
    observer.wait_for_state("active")
    yield observer
    observer.close()


def test_depth_set_by_service_takes_effect_within_two_frames(active):
    reports = active.collect(DiagnosticStatus, "/detector/frames")
    active.wait_for_publisher("/detector/frames")
    images = active.publisher(Image, "image_raw", RELIABLE)

    def depth_of_next_frame() -> str:
        header = stamped(0)
        stamp = f"{header.stamp.sec}.{header.stamp.nanosec:09d}"
        images.publish(image_message(header))

        def depth() -> str | None:
            values = values_of(reports[-1])
            return values["depth"] if values["stamp"] == stamp else None

        return active.spin_until(depth, "the report of the frame")

    def reports_come() -> bool:
        images.publish(image_message(stamped(0)))
        return bool(reports)

    active.spin_until(reports_come, "the first report")
    for depth, runs in (
        ("base", "EEEE.EEEE"),
        ("full", "FFFF.FFFF"),
        ("auto", "FFFF.FFFF"),  # without a deadline
    ):
        assert active.set_parameter("depth", depth).successful
        assert runs in (depth_of_next_frame(), depth_of_next_frame())
        assert depth_of_next_frame() == runs
    # Not of the ladder: the one before serves on until it is built.
    assert active.set_parameter("depth", "FEFE.FEFE").successful
    ran = {"FFFF.FFFF"}

    def is_taken() -> bool:
        ran.add(depth_of_next_frame())
        return "FEFE.FEFE" in ran

    active.spin_until(is_taken, "the depth that was built")
    assert ran == {"FFFF.FFFF", "FEFE.FEFE"}
    assert active.set_parameter("depth", "auto").successful


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", "deep"),
        ("depth", "FFFF.FFFF.d2"),
        ("depth", 3),
        ("deadline_ms", -1.0),
        ("deadline_ms", math.nan),
        ("deadline_ms", math.inf),
        ("deadline_ms", "fast"),
        ("score_threshold", 1.5),
        ("score_threshold", math.nan),
        ("score_threshold", True),
        ("max_detections", 0),
        ("max_detections", 2.5),
        ("late_policy", "skip"),
        ("class_score_thresholds", ["dog:0.5"]),
        ("class_score_thresholds", ["person:2.0"]),
    ],
)
def test_bad_value_is_refused_with_the_accepted_ones_and_changes_nothing(active, name, value):
    before = active.get_parameter(name)
    result = active.set_parameter(name, value)
    assert not result.successful
    accepted = {"depth": "'auto', 'full', 'base'", "late_policy": "'run_base', 'drop'", "max_detections": "1000"}
    accepted |= {"deadline_ms": "60000", "score_threshold": "1", "class_score_thresholds": "CLASS:SCORE"}
    assert name in result.reason and accepted[name] in result.reason
    assert active.get_parameter(name) == before


def test_a_whole_number_does_not_change_the_type_of_a_number(active):
    before = active.get_parameter("score_threshold")
    assert active.set_parameter("score_threshold", 1).successful
    value = active.get_parameter("score_threshold")
    assert isinstance(value, float) and value == 1.0
    assert active.set_parameter("score_threshold", before).successful


def test_parameter_cannot_be_removed(active):
    result = active.set_raw_parameter(Parameter(name="deadline_ms", value=ParameterValue()))
    assert not result.successful and "a number in [0, 60000]; got no value" in result.reason


@pytest.mark.parametrize(("name", "value"), [("model", "other"), ("execution", "staged"), ("image_topics", ["x"])])
def test_what_is_not_live_is_refused_while_configured(active, name, value):
    result = active.set_parameter(name, value)
    assert not result.successful and f"{name} is read-only while the node is configured" in result.reason


@pytest.mark.parametrize(("name", "value"), [("deadline_ms", 40), ("deadline_ms", 33.3), ("max_detections", 7)])
def test_good_value_is_taken_and_shown_in_diagnostics(active, name, value):
    assert active.set_parameter(name, value).successful
    assert active.get_parameter(name) == value
    if name == "deadline_ms":
        active.status(lambda status, values: float(values["deadline_ms"]) == pytest.approx(value), "the new deadline")


def test_threshold_of_a_class_holds_from_the_next_frame_on_and_for_that_class_alone(active):
    images = active.publisher(Image, "image_raw", RELIABLE)
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")

    def classes_found() -> set[str]:
        count = len(detections)
        images.publish(image_message(stamped(count), seed=1))
        active.spin_until(lambda: len(detections) > count, "detections")
        return {detection.results[0].hypothesis.class_id for detection in detections[-1].detections}

    assert active.set_parameter("score_threshold", 0.0).successful
    assert active.set_parameter("max_detections", 1000).successful
    before = classes_found()
    name = sorted(before)[0]
    assert active.set_parameter("class_score_thresholds", [f"{name}:1.0"]).successful
    assert classes_found() == before - {name}
    assert active.set_parameter("class_score_thresholds", [""]).successful
    assert classes_found() == before


def test_region_and_least_box_size_hold_from_the_next_frame_on_in_pixels_of_the_image(active):
    images = active.publisher(Image, "image_raw", RELIABLE)
    detections = active.collect(Detection2DArray, "detections")
    active.wait_for_publisher("/detections")

    def boxes() -> list[tuple[float, float, float, float]]:
        count = len(detections)
        images.publish(image_message(stamped(count), seed=1, width=160, height=120))
        active.spin_until(lambda: len(detections) > count, "detections")
        found = [detection.bbox for detection in detections[-1].detections]
        return [(box.center.position.x, box.center.position.y, box.size_x, box.size_y) for box in found]

    for name, value in (("score_threshold", 0.0), ("max_detections", 1000), ("roi", [0.5, 0.25, 1.0, 1.0])):
        assert active.set_parameter(name, value).successful
    inside = boxes()
    assert inside and all(x - 0.5 * width >= 79.9 and y - 0.5 * height >= 29.9 for x, y, width, height in inside)
    size = sorted(min(width, height) for *_, width, height in inside)[len(inside) // 2]
    assert active.set_parameter("min_box_size", size).successful
    large = boxes()
    assert 0 < len(large) <= len(inside) and all(min(width, height) >= size - 0.1 for *_, width, height in large)
    assert active.set_parameter("min_box_size", 0.0).successful and active.set_parameter("roi", [""]).successful
    assert any(x < 79.0 for x, *_ in boxes())


def test_every_parameter_has_a_description_and_every_number_a_range(active):
    for name, info in TABLE.items():
        descriptor = active.describe(name)
        assert descriptor.description == info.description
        if isinstance(DEFAULTS[name], float):
            (limits,) = descriptor.floating_point_range
            assert (limits.from_value, limits.to_value) == (info.kind.minimum, info.kind.maximum)
        elif isinstance(DEFAULTS[name], int) and not isinstance(DEFAULTS[name], bool):
            (limits,) = descriptor.integer_range
            assert (limits.from_value, limits.to_value) == (info.kind.minimum, info.kind.maximum)

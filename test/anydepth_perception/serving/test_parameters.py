"""The parameter table: what it accepts, what it refuses and with which words."""

from __future__ import annotations

import dataclasses
import math
from array import array

import pytest

from anydepth_perception.depth.space import DepthSpace
from anydepth_perception.serving.settings import DEFAULTS, TABLE, ParameterError, Settings, check, typed

STAGES = ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5")
EIGHT_STAGES = DepthSpace.of((*STAGES, "head"), STAGES, STAGES)


def test_all_defaults_are_accepted_by_their_own_checks():
    assert Settings.from_values(DEFAULTS) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deadline_ms", 50),
        ("deadline_ms", 0.0),
        ("deadline_ms", 60000.0),
        ("camera_deadlines_ms", [90, 45.5, 0.0]),
        ("camera_deadlines_ms", []),
        ("camera_deadlines_ms", array("d", [90.0, 45.0])),
        ("score_threshold", 0),
        ("score_threshold", 1.0),
        ("max_detections", 1),
        ("depth", "auto"),
        ("depth", "full"),
        ("depth", "FFEE.EEFF"),
        ("depth", "FFEE.EEFF.d4"),
        ("depth", "FFEE"),  # which stages there are, the bundle says
        ("image_topics", ["left/image_raw", "/right/image_raw", "~/image"]),
        ("profile", ""),
        ("cache_dir", ""),
        ("decision_points", ["p5", "head"]),
        ("decision_points", []),
        ("class_score_thresholds", ["person:0.5", "hand truck:1"]),
        ("class_allowlist", ["person", "hand truck"]),
        ("roi", [0.0, 0.25, 1, 1.0]),
        ("roi", array("d", [0.0, 0.0, 0.5, 1.0, 0.5, 0.0, 1.0, 1.0])),
        ("roi", []),
        ("mask", ["none"]),
        ("mask", []),
        ("min_box_size", 0),
    ],
)
def test_good_value_is_accepted(name, value):
    assert check(name, value) == (tuple(value) if isinstance(value, (list, array)) else value)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("deadline_ms", -1.0, "a number in [0, 60000]"),
        ("deadline_ms", math.nan, "a number in [0, 60000]"),
        ("deadline_ms", math.inf, "a number in [0, 60000]"),
        ("deadline_ms", True, "a number in [0, 60000]"),
        ("deadline_ms", "fast", "a number in [0, 60000]"),
        ("deadline_ms", None, "a number in [0, 60000]"),
        ("camera_deadlines_ms", [50.0, -1.0], "a list of numbers in [0, 60000]"),
        ("camera_deadlines_ms", [math.nan], "a list of numbers in [0, 60000]"),
        ("camera_deadlines_ms", [math.inf], "a list of numbers in [0, 60000]"),
        ("camera_deadlines_ms", ["50"], "a list of numbers in [0, 60000]"),
        ("camera_deadlines_ms", [True], "a list of numbers in [0, 60000]"),
        ("camera_deadlines_ms", 50.0, "a list of numbers in [0, 60000]"),
        ("camera_deadlines_ms", None, "a list of numbers in [0, 60000]"),
        ("score_threshold", 1.01, "a number in [0, 1]"),
        ("max_detections", 0, "a whole number in [1, 1000]"),
        ("max_detections", 5.0, "a whole number in [1, 1000]"),
        ("threads", -1, "a whole number in [0, 256]"),
        ("depth", "deep", "'auto', 'full', 'base'"),
        ("depth", "FFE.FFEE", "'auto', 'full', 'base'"),
        ("depth", 4, "'auto', 'full', 'base'"),
        ("late_policy", "skip", "'run_base', 'drop'"),
        ("backend", "torch", "'auto', 'onnxruntime', 'openvino', 'tensorrt'"),
        ("image_transport", "theora", "'raw', 'compressed'"),
        ("model", "  ", "a text that is not empty"),
        ("autostart", 1, "true or false"),
        ("image_topics", [], "a list of different topic names"),
        ("image_topics", "image_raw", "a list of different topic names"),
        ("image_topics", ["a", "a"], "a list of different topic names"),
        ("image_topics", ["two words"], "a list of different topic names"),
        ("image_topics", ["1st"], "a list of different topic names"),
        ("execution", "parallel", "'whole', 'staged'"),
        ("precision", "int8", "'auto', 'float32', 'float16'"),
        ("workspace_mib", 0, "a whole number in [16, 65536]"),
        ("decision_points", "p5", "a list of different pipeline entries"),
        ("decision_points", ["p5", "p5"], "a list of different pipeline entries"),
        ("decision_points", [3], "a list of different pipeline entries"),
        ("class_allowlist", ["person", "person"], "a list of different class names"),
        ("roi", [0.0, 0.0, 1.0], "left, top, right, bottom in [0, 1]"),
        ("roi", [0.0, 0.0, 1.0, 1.1], "left, top, right, bottom in [0, 1]"),
        ("roi", [0.5, 0.0, 0.4, 1.0], "right and bottom the larger"),
        ("roi", [0.5, 0.0, 0.505, 1.0], "right and bottom the larger"),
        ("roi", [0.0, 0.0, math.nan, 1.0], "left, top, right, bottom in [0, 1]"),
        ("mask", ["/nowhere/mask.png"], "a list of PNG files"),
        ("mask", "none", "a list of PNG files"),
        ("min_box_size", -1.0, "a number in [0, 32767]"),
        ("class_score_thresholds", "person:0.5", "a list of texts CLASS:SCORE"),
        ("class_score_thresholds", ["person"], "a list of texts CLASS:SCORE"),
        ("class_score_thresholds", ["person:high"], "a list of texts CLASS:SCORE"),
        ("class_score_thresholds", ["person:nan"], "a list of texts CLASS:SCORE"),
        ("class_score_thresholds", ["person:0.1", "person:0.2"], "a list of texts CLASS:SCORE"),
    ],
)
def test_bad_value_is_refused_naming_parameter_value_and_accepted(name, value, accepted):
    with pytest.raises(ParameterError) as refusal:
        check(name, value)
    text = str(refusal.value)
    assert text.startswith(f"{name} must be ")
    assert accepted in text
    assert "\n" not in text


def test_unknown_parameter_is_refused_by_name():
    with pytest.raises(ParameterError, match="unknown parameter 'dealine_ms'"):
        check("dealine_ms", 1.0)


def test_depth_with_an_exit_is_refused_for_a_detector_without_decoder():
    with pytest.raises(ParameterError, match="no decoder"):
        check("depth", "FFEE.FFEE.d4", space=EIGHT_STAGES)


@pytest.mark.parametrize("depth", ["FFEE", "FFEE.FFEE.F"])
def test_depth_of_another_number_of_stages_is_refused_naming_those_of_the_bundle(depth):
    with pytest.raises(ParameterError, match=r"depth must be 'auto'.* stages, this network has 8: p2, p3, "):
        check("depth", depth, space=EIGHT_STAGES)


def test_threshold_of_a_class_that_the_bundle_lacks_is_refused_naming_the_classes():
    with pytest.raises(ParameterError, match="class 'persn' is unknown, the bundle has person, crate"):
        check("class_score_thresholds", ["persn:0.5"], class_names=("person", "crate"))


@pytest.mark.parametrize("name", ["decision_points", "class_score_thresholds", "camera_deadlines_ms"])
def test_a_list_of_one_empty_text_is_the_empty_list_of_a_parameter_file(name):
    assert check(name, [""]) == ()


@pytest.mark.parametrize(("topics", "deadlines"), [(["a", "b"], [90.0]), (["a"], [90.0, 90.0])])
def test_deadlines_of_another_number_than_the_cameras_are_refused_in_one_line(topics, deadlines):
    values = {"image_topics": topics, "camera_deadlines_ms": deadlines}
    with pytest.raises(ParameterError, match=r"camera_deadlines_ms must have one entry for each of .*; got \d for \d"):
        Settings.from_values(values)


def test_each_camera_has_its_own_deadline_or_else_the_common_one():
    settings = Settings(image_topics=("a", "b", "c"), deadline_ms=60.0)
    assert [settings.deadline_of_camera_ms(camera) for camera in range(3)] == [60.0] * 3
    own = settings.updated({"camera_deadlines_ms": [90.0, 45.0, 0.0]}, configured=True)
    assert [own.deadline_of_camera_ms(camera) for camera in range(3)] == [90.0, 45.0, 0.0]


def test_class_that_the_bundle_lacks_is_refused_in_the_list_of_those_allowed():
    with pytest.raises(ParameterError, match="class 'persn' is unknown, the bundle has person, crate"):
        check("class_allowlist", ["persn"], class_names=("person", "crate"))


def test_region_and_mask_are_common_or_each_cameras_own():
    topics = {"image_topics": ["a", "b"]}
    common = Settings.from_values({**topics, "roi": [0.0, 0.5, 1.0, 1.0], "mask": ["none"]})
    assert [common.region_of_camera(camera) for camera in (0, 1)] == [(0.0, 0.5, 1.0, 1.0)] * 2
    own = Settings.from_values({**topics, "roi": [0.0, 0.5, 1.0, 1.0, 0.0, 0.0, 0.5, 1.0], "mask": ["none", "none"]})
    assert [own.region_of_camera(camera) for camera in (0, 1)] == [(0.0, 0.5, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)]
    assert [Settings().region_of_camera(0), Settings().mask_of_camera(0), own.mask_of_camera(1)] == [(), "", ""]
    for wrong in ({"roi": [0.0, 0.0, 1.0, 1.0] * 3}, {"mask": ["none"] * 3}):
        with pytest.raises(ParameterError, match=r"(roi|mask) must have .* for each of image_topics, .* or none"):
            Settings.from_values({**topics, **wrong})


def test_limits_between_which_nothing_is_left_are_refused_once_the_network_is_known():
    settings = Settings().updated({"min_depth": "full", "max_depth": "base"}, configured=False)
    with pytest.raises(ParameterError, match="min_depth and max_depth contradict each other: no configuration is left"):
        settings.checked(EIGHT_STAGES, ("person",))
    limited = Settings().updated({"min_depth": "FFEE.EEEE"}, configured=True, space=EIGHT_STAGES)
    with pytest.raises(ParameterError, match=r"is left between min_depth FFEE\.EEEE and max_depth base"):
        limited.updated({"max_depth": "base"}, configured=True, space=EIGHT_STAGES)
    assert limited.updated({"max_depth": "FFFF.EEEE"}, configured=True, space=EIGHT_STAGES).max_depth == "FFFF.EEEE"


def test_update_changes_all_values_or_none():
    settings = Settings()
    with pytest.raises(ParameterError):
        settings.updated({"deadline_ms": 40.0, "score_threshold": 7.0}, configured=False)
    assert settings.deadline_ms == DEFAULTS["deadline_ms"]
    changed = settings.updated({"deadline_ms": 40.0, "score_threshold": 0.5}, configured=False)
    assert (changed.deadline_ms, changed.score_threshold) == (40.0, 0.5)


@pytest.mark.parametrize("name", [name for name, info in TABLE.items() if not info.live])
def test_parameter_that_is_not_live_cannot_change_while_configured(name):
    other = {"image_topics": ["other"], "autostart": False, "exit_on_error": True, "threads": 3, "model": "other"}
    other |= {"profile": "other", "workspace_mib": 256, "decision_points": ["p5"], "cache_dir": "other"}
    other |= {"record_times": "other.npz"}
    if name not in other:
        other[name] = next(choice for choice in TABLE[name].kind.choices if choice != DEFAULTS[name])
    value = other[name]
    with pytest.raises(ParameterError, match=f"{name} is read-only while the node is configured"):
        Settings().updated({name: value}, configured=True)
    assert getattr(Settings().updated({name: value}, configured=False), name) != DEFAULTS[name]


def test_live_parameters_change_while_configured():
    live = {"depth": "base", "deadline_ms": 30.0, "score_threshold": 0.9, "max_detections": 5, "late_policy": "drop"}
    live |= {"min_depth": "base", "max_depth": "FFFF.FFEE", "miss_target": 0.02}
    live |= {"class_score_thresholds": ("person:0.5",), "camera_deadlines_ms": (30.0,)}
    live |= {"max_image_pixels": 1000, "mono16_bits": 12}
    live |= {"class_allowlist": ("person",), "min_box_size": 8.0, "roi": (0.0, 0.5, 1.0, 1.0), "mask": ("none",)}
    assert {name for name, info in TABLE.items() if info.live} == set(live)
    settings = Settings().updated(live, configured=True, space=EIGHT_STAGES, class_names=("person",))
    assert {name: getattr(settings, name) for name in live} == live


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().depth = "base"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("deadline_ms", "50", 50.0),
        ("deadline_ms", "soon", "soon"),
        ("camera_deadlines_ms", "[90, 45]", [90.0, 45.0]),
        ("camera_deadlines_ms", "90,soon", "90,soon"),
        ("max_detections", "7", 7),
        ("autostart", "False", False),
        ("depth", "FFEE.FFEE", "FFEE.FFEE"),
        ("image_topics", "left/image_raw, right/image_raw", ["left/image_raw", "right/image_raw"]),
        ("image_topics", "['left/image_raw']", ["left/image_raw"]),
    ],
)
def test_launch_argument_gets_the_type_of_its_parameter(name, text, value):
    assert typed(name, text) == value


def test_what_was_set_before_the_bundle_was_known_is_held_against_it_then():
    classes = ("person", "crate")
    good = Settings(class_score_thresholds=("crate:0.5",), depth="FFEE.FFEE")
    assert good.checked(EIGHT_STAGES, classes) == good
    for bad in (Settings(class_score_thresholds=("dog:0.5",)), Settings(depth="FFE")):
        with pytest.raises(ParameterError, match=r"class 'dog' is unknown|stages, this network has 8"):
            bad.checked(EIGHT_STAGES, classes)


def test_other_image_transports_are_refused_with_what_makes_raw_images_of_them():
    with pytest.raises(ParameterError, match=r"got 'theora' \(str\); `ros2 run image_transport republish` makes raw"):
        Settings.from_values({"image_transport": "theora"})


@pytest.mark.parametrize("value", ["x" * 1_000_000, ["y" * 1_000_000], ["z"] * 1_000_000])
def test_a_long_value_is_not_repeated_in_its_refusal(value):
    with pytest.raises(ParameterError) as error:
        Settings.from_values({"image_transport": value})
    assert len(str(error.value)) < 1000

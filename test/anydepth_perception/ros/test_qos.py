"""Which policies don't match, and the profile that lets images through."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

from anydepth_perception.ros import qos

VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def profile(**policies) -> QoSProfile:
    return QoSProfile(depth=1, **policies)


@pytest.mark.parametrize(
    ("offered", "requested", "names"),
    [
        ({}, {}, []),
        ({"reliability": ReliabilityPolicy.BEST_EFFORT}, {"reliability": ReliabilityPolicy.RELIABLE}, ["reliability"]),
        ({"reliability": ReliabilityPolicy.RELIABLE}, {"reliability": ReliabilityPolicy.BEST_EFFORT}, []),
        ({}, {"durability": DurabilityPolicy.TRANSIENT_LOCAL}, ["durability"]),
        ({"durability": DurabilityPolicy.TRANSIENT_LOCAL}, {}, []),
        ({}, {"deadline": Duration(seconds=1)}, ["deadline"]),
        ({"deadline": Duration(seconds=2)}, {"deadline": Duration(seconds=1)}, ["deadline"]),
        ({"deadline": Duration(seconds=1)}, {"deadline": Duration(nanoseconds=2**63 - 1)}, []),
        ({"deadline": Duration(nanoseconds=2**63 - 1)}, {}, []),
        (
            {"liveliness": LivelinessPolicy.AUTOMATIC},
            {"liveliness": LivelinessPolicy.MANUAL_BY_TOPIC},
            ["liveliness"],
        ),
    ],
)
def test_policies_in_which_less_is_offered_than_requested_are_named(offered, requested, names):
    assert qos.mismatches(profile(**offered), profile(**requested)) == names


def test_image_profile_is_set_unless_the_user_chose_one(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    qos.use_image_profile()
    assert {Path(os.environ.get(variable, "")).name for variable in VARIABLES} == {"fastdds_images.xml"}
    for variable in VARIABLES:
        monkeypatch.delenv(variable)
    monkeypatch.setenv(VARIABLES[0], "/chosen.xml")
    qos.use_image_profile()
    assert os.environ[VARIABLES[0]] == "/chosen.xml" and VARIABLES[1] not in os.environ


def test_image_profile_is_found_without_an_ament_index(monkeypatch):
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", None)  # an import of it fails
    assert qos.image_profile_path() == Path(__file__).resolve().parents[3] / "config" / "fastdds_images.xml"


@pytest.mark.parametrize(("told", "counted"), [(0, 0), (3, 3), (2**31 - 1, 1), (-5, 1)])
def test_numbers_of_the_middleware_that_cannot_be_count_as_one_loss(told, counted):
    assert qos.plausible_losses(told) == counted


def test_a_publisher_without_a_name_is_told_as_one_whose_data_do_not_come():
    info = SimpleNamespace(
        node_name="_NODE_NAME_UNKNOWN_", node_namespace="/", qos_profile=qos.image_qos("reliable"), topic_type=qos.IMAGE
    )
    node = SimpleNamespace(get_publishers_info_by_topic=lambda topic: [info])
    words = qos.publishers_in_words(node, "/image_raw", qos.IMAGE)
    assert "belongs to another user or container" in words and "--ipc=host" in words

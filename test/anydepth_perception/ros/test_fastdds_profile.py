"""The shipped Fast DDS profile is accepted by Fast DDS and holds whole images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

PROFILE = Path(__file__).resolve().parents[3] / "config/fastdds_images.xml"
NAMESPACE = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
MIB = 1 << 20

START_A_PARTICIPANT = """
import rclpy
rclpy.init()
node = rclpy.create_node("profile_check")
assert rclpy.get_rmw_implementation_identifier() == "rmw_fastrtps_cpp"
node.destroy_node()
rclpy.shutdown()
"""


def start_a_participant(profile: Path) -> str:
    """Start a node under the profile in a process of its own; return all it printed."""
    variables = {**os.environ, "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        variables[name] = str(profile)
    command = [sys.executable, "-c", START_A_PARTICIPANT]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_shared_memory_segment_holds_several_images() -> None:
    transports = ElementTree.parse(PROFILE).findall(".//dds:transport_descriptor", NAMESPACE)
    sizes = {
        transport.findtext("dds:type", namespaces=NAMESPACE): {
            element.tag.split("}")[1]: element.text for element in transport
        }
        for transport in transports
    }
    assert set(sizes) == {"SHM", "UDPv4"}
    assert int(sizes["SHM"]["segment_size"]) == 64 * MIB
    assert int(sizes["SHM"]["maxMessageSize"]) == 16 * MIB


def test_fast_dds_accepts_the_profile() -> None:
    assert "XMLPARSER" not in start_a_participant(PROFILE)


def test_fast_dds_reads_the_file_it_is_given(tmp_path: Path) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text(PROFILE.read_text().replace("segment_size", "segment_sise"))
    if "XMLPARSER" not in start_a_participant(broken):
        pytest.fail("Fast DDS says nothing of an unknown element, so the test above could not fail")

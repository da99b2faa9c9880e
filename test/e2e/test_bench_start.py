"""The tool that measures the node's start, with a real node and real DDS."""

from __future__ import annotations

import json


def test_tool_times_cold_and_warm_starts_and_prints_json_last(start, tiny_bundle_path):
    tool = start("-m", "anydepth_perception.tools.bench", "start", "--starts", "1", "--model", str(tiny_bundle_path))
    assert tool.wait() == 0, tool.log()
    report = json.loads(tool.log().splitlines()[-1])
    for kind in ("cold", "warm"):
        milestones = list(report[kind])
        assert milestones == [
            "first_log_line_s",
            "engines_s",
            "profile_s",
            "configured_s",
            "active_s",
            "first_detections_s",
        ]
        times = list(report[kind].values())
        assert times[0] > 0.0 and times == sorted(times)


def test_node_that_cannot_start_is_an_error_with_the_end_of_its_log(start):
    tool = start("-m", "anydepth_perception.tools.bench", "start", "--starts", "1", "--model", "nowhere")
    tool.wait_for_log("error: ")
    assert tool.wait() == 1
    assert "nowhere: no such bundle" in tool.log() and "Traceback" not in tool.log()

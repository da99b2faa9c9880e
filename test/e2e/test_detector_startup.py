"""Parameters given at the start: a bad one fails configure with the reason, and the node can be mended."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_processes import values_of

from anydepth_perception.serving.settings import DEFAULTS


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"depth": "deep"}, "depth must be 'auto', 'full', 'base'"),
        ({"depth": "FFFF.FFFF.d9"}, "no decoder"),
        ({"deadline_ms": -5.0}, "deadline_ms must be a number in [0, 60000]; got -5.0"),
        ({"score_threshold": "high"}, "score_threshold must be a number in [0, 1]; got 'high'"),
        ({"execution": "staged", "decision_points": ["p9"]}, "decision point 'p9' is not one of stem, p2"),
        ({"class_score_thresholds": ["person:0.5", "dog:0.5"]}, "class 'dog' is unknown, the bundle has person"),
    ],
)
def test_bad_value_at_the_start_fails_configure_with_the_reason_and_the_node_stays(
    start, node_arguments, observer, bad, words
):
    detector = start(*node_arguments(**bad))
    status = observer.status(lambda status, values: status.level == DiagnosticStatus.ERROR, "an error")
    assert words in status.message and values_of(status)["state"] == "unconfigured"
    (line,) = [line for line in detector.log().splitlines() if "configure failed" in line]
    assert words in line
    assert observer.state() == "unconfigured"
    for name in bad:
        default = DEFAULTS[name]
        assert observer.set_parameter(name, [""] if default == () else default).successful
    assert observer.change_state("configure") and observer.change_state("activate")
    observer.status(lambda status, values: status.level != DiagnosticStatus.ERROR, "no error any more")
    detector.end()
    assert "unknown parameter" not in detector.log()


def test_misspelt_parameter_is_warned_of(start, node_arguments, observer):
    detector = start(*node_arguments(dealine_ms=5.0))
    detector.wait_for_log("unknown parameter 'dealine_ms' is ignored")
    observer.wait_for_state("active")
    detector.end()


def test_exit_on_error_ends_the_process_with_the_reason(start, node_arguments):
    node = start(*node_arguments(model="nowhere", exit_on_error=True))
    assert node.wait() == 1
    assert "configure failed: nowhere: no such bundle" in node.log()


@pytest.mark.parametrize(("option", "code", "said"), [("--help", 0, "usage: detector_node"), ("--dpeth", 2, "--dpeth")])
def test_help_and_unknown_options_start_no_node(start, option, code, said):
    node = start("-m", "anydepth_perception.ros", option)
    assert node.wait() == code
    assert said in node.log()
    assert "configure" not in node.log()


def test_simulated_time_without_a_clock_is_told(start, node_arguments, observer):
    start(*node_arguments(use_sim_time=True))

    def warning() -> DiagnosticStatus | None:  # without a clock, messages have no stamp to tell new ones by
        status = observer.diagnostics.get("detector: detector")
        return status if status is not None and "no /clock is received" in status.message else None

    assert observer.spin_until(warning, "a warning").level == DiagnosticStatus.WARN

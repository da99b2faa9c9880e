"""Life cycle of the detector: broken bundles, repeated transitions, missing images, and prompt ends."""

from __future__ import annotations

import shutil
import signal

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_processes import BEST_EFFORT, RELIABLE, RUNTIME_PYTHON, Observer, image_message, stamped, values_of
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from anydepth_perception.depth.simulation.trace import read_trace

BLOCKED_CONFIGURE = """
import time
import anydepth_perception.ros.node as node
from anydepth_perception.ros.__main__ import main
node.load_model = lambda *arguments, **options: (print("blocked", flush=True), time.sleep(1000))
main()
"""

SLOW_CONFIGURE = """
import time
import anydepth_perception.ros.node as node
from anydepth_perception.ros.__main__ import main
node.load_model = lambda settings, progress: (progress("engine 3 of 8"), time.sleep(1000))
main()
"""

BLOCKED_WORKER = """
import sys, time
import anydepth_perception.ros.node as node
from anydepth_perception.ros.__main__ import main
from anydepth_perception.detection.detector import Detector
real = Detector.detect
def detect(*arguments, **options):
    if "loaded" in sys.modules:
        print("blocked", flush=True)
        time.sleep(1000)
    return real(*arguments, **options)
Detector.detect = detect
load = node.load_model
def load_model(*arguments, **options):
    model = load(*arguments, **options)
    sys.modules["loaded"] = sys
    return model
node.load_model = load_model
main()
"""

BLOCKED_MAIN_THREAD = """
import ctypes
import anydepth_perception.ros.node as node
from anydepth_perception.ros.__main__ import main
def publish_diagnostics(self):
    print("blocked", flush=True)
    libc = ctypes.CDLL(None)
    while True:  # each signal cuts one sleep short; Python gets no turn in between
        libc.sleep(1000)
        libc.sleep(1000)
node.DetectorNode._publish_diagnostics = publish_diagnostics
main()
"""

BLOCKED_IMPORT = """
import sys, time
class Blocking:
    def find_spec(self, name, path=None, target=None):
        if name == "rclpy":
            print("blocked", flush=True)
            time.sleep(1000)
sys.meta_path.insert(0, Blocking())
from anydepth_perception.ros.__main__ import main
main()
"""


@pytest.fixture
def broken_bundle(tiny_bundle_path, tmp_path):
    """A copy of the tiny bundle, to be broken."""
    return shutil.copytree(tiny_bundle_path, tmp_path / "broken.anydepth")


def wait_for_error(observer: Observer) -> DiagnosticStatus:
    return observer.status(lambda status, values: status.level == DiagnosticStatus.ERROR, "an error")


def test_truncated_bundle_fails_configure_naming_the_file_and_can_be_mended(
    start, node_arguments, observer, broken_bundle
):
    segment = broken_bundle / "segments" / "p3.full.onnx"
    whole = segment.read_bytes()
    segment.write_bytes(whole[: len(whole) // 2])
    detector = start(*node_arguments(model=str(broken_bundle)))
    status = wait_for_error(observer)
    assert "p3.full.onnx" in status.message and values_of(status)["state"] == "unconfigured"
    assert not observer.change_state("configure")
    segment.write_bytes(whole)
    assert observer.change_state("configure") and observer.change_state("activate")
    observer.status(lambda status, values: status.message == "active", "the active node")
    detector.end()


@pytest.mark.parametrize("breakage", ["missing", "no manifest", "manifest"])
def test_broken_bundle_is_named_in_the_error(start, node_arguments, observer, broken_bundle, breakage):
    manifest = broken_bundle / "manifest.json"
    if breakage == "missing":
        shutil.rmtree(broken_bundle)
    elif breakage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes()[:200])
    detector = start(*node_arguments(model=str(broken_bundle)))
    named = "broken.anydepth" if breakage == "missing" else "manifest.json"
    assert named in wait_for_error(observer).message
    detector.end()


def test_all_transitions_can_be_gone_through_twice_and_impossible_ones_are_refused(start, node_arguments, observer):
    detector = start(*node_arguments(autostart=False))
    images = observer.node.create_publisher(Image, "image_raw", BEST_EFFORT)
    detections = observer.collect(Detection2DArray, "detections")
    assert observer.state() == "unconfigured"
    assert not observer.change_state("activate")
    for _ in range(2):
        assert observer.change_state("configure") and observer.state() == "inactive"
        assert not observer.change_state("configure")
        assert observer.change_state("activate") and observer.state() == "active"
        seen = len(detections)

        def one_came(seen: int = seen) -> bool:
            images.publish(image_message(stamped(0)))
            return len(detections) > seen

        observer.spin_until(one_came, "detections")
        assert observer.change_state("deactivate") and observer.state() == "inactive"
        assert observer.change_state("cleanup") and observer.state() == "unconfigured"
    assert observer.change_state("configure") and observer.change_state("activate")
    assert observer.change_state("shutdown") and observer.state() == "finalized"
    detector.end()


def test_missing_images_are_warned_of_with_the_publishers_and_their_qos(start, node_arguments, observer):
    detector = start(*node_arguments())
    observer.wait_for_state("active")
    silent = observer.status(lambda status, values: status.level == DiagnosticStatus.WARN, "a warning")
    assert "no image on /image_raw for" in silent.message and "no publishers" in silent.message
    images = observer.node.create_publisher(Image, "image_raw", BEST_EFFORT)
    # The endpoint is known a little before the name of its node.
    name = "publishers: /observer (best_effort, volatile)"
    listed = observer.status(lambda status, values: name in status.message, "the publisher")
    assert listed.level == DiagnosticStatus.WARN

    def images_arrive() -> bool:
        images.publish(image_message(stamped(0)))
        return observer.diagnostics["detector: /image_raw"].level == DiagnosticStatus.OK

    observer.spin_until(images_arrive, "diagnostics without a warning")
    detector.end()


def test_publisher_with_incompatible_qos_is_an_error_naming_topic_and_policy(start, node_arguments, observer):
    detector = start(*node_arguments(image_qos="reliable"))
    observer.wait_for_state("active")
    observer.node.create_publisher(Image, "image_raw", BEST_EFFORT)
    message = observer.status(
        lambda status, values: status.level == DiagnosticStatus.ERROR and "/observer" in status.message, "an error"
    ).message
    assert "incompatible QoS on /image_raw" in message and "reliab" in message.lower()
    detector.wait_for_log("has an incompatible QoS policy: RELIABILITY")
    detector.end()


def test_subscriber_with_incompatible_qos_is_an_error_until_it_goes(start, node_arguments, observer):
    detector = start(*node_arguments())
    observer.wait_for_state("active")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = observer.node.create_subscription(Detection2DArray, "detections", print, latched)
    message = wait_for_error(observer).message
    assert "incompatible QoS on /detections" in message and "durab" in message.lower()
    observer.node.destroy_subscription(subscription)
    observer.status(lambda status, values: status.level != DiagnosticStatus.ERROR, "no error any more")
    detector.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_detector_that_serves_frames(start, node_arguments, observer, number):
    detector = start(*node_arguments())
    detections = observer.collect(Detection2DArray, "detections")
    images = observer.publisher(Image, "image_raw")

    def some_came() -> bool:
        images.publish(image_message(stamped(0)))
        return len(detections) >= 3

    observer.spin_until(some_came, "detections")
    detector.end(number)


@pytest.mark.parametrize("script", [BLOCKED_CONFIGURE, BLOCKED_MAIN_THREAD], ids=["worker", "main thread"])
def test_sigint_ends_a_detector_that_hangs_at_configure(start, script):
    detector = start("-c", script)
    detector.wait_for_log("blocked")
    detector.end()


def test_services_are_answered_and_progress_is_told_while_a_configure_takes_its_time(start, observer):
    detector = start("-c", SLOW_CONFIGURE)
    observer.wait_for_state("configuring")
    status = observer.status(lambda status, values: values["state"] == "configuring", "the state")
    assert status.message == "configuring: engine 3 of 8" and values_of(status)["progress"] == "engine 3 of 8"
    assert observer.set_parameter("deadline_ms", 40.0).successful and observer.get_parameter("deadline_ms") == 40.0
    refused = observer.set_parameter("threads", 1)
    assert not refused.successful and "threads is read-only while the node is configured" in refused.reason
    detector.end()


def test_transition_that_is_asked_for_during_another_one_waits_for_its_turn(start, node_arguments, observer):
    detector = start(*node_arguments(autostart=False))
    assert observer.state() == "unconfigured"
    client = observer.node.create_client(ChangeState, "/detector/change_state")
    observer.spin_until(client.service_is_ready, "the service")
    wanted = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE)
    answers = [client.call_async(ChangeState.Request(transition=Transition(id=number))) for number in wanted]
    observer.spin_until(lambda: all(answer.done() for answer in answers), "all answers")
    assert [answer.result().success for answer in answers] == [True] * 3 and observer.state() == "inactive"
    detector.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_detector_that_is_still_importing(start, number):
    detector = start("-c", BLOCKED_IMPORT)
    detector.wait_for_log("blocked")
    detector.end(number)


def test_sigint_ends_a_detector_whose_worker_hangs_on_a_frame(start, node_arguments, observer):
    detector = start("-c", BLOCKED_WORKER, *node_arguments()[2:])
    images = observer.publisher(Image, "image_raw")

    def hangs() -> bool:
        images.publish(image_message(stamped(0)))
        return "blocked" in detector.log()

    observer.spin_until(hangs, "the worker to hang")
    assert observer.state() == "active"
    detector.end()


@pytest.mark.parametrize(
    "arguments",
    [["-p", "no assignment"], ["--params-file", "/nowhere/detector.yaml"], ["-r", "__ns:=/not-allowed"]],
    ids=["parameter", "file", "namespace"],
)
def test_ros_arguments_that_cannot_be_read_are_an_error_of_one_line(start, arguments):
    detector = start("-m", "anydepth_perception.ros", "--ros-args", *arguments)
    assert detector.wait() == 1
    assert "error: " in detector.log() and "Traceback" not in detector.log()


def test_node_camera_and_detector_never_import_torch(start):
    modules = "anydepth_perception.ros.node, anydepth_perception.tools.camera.node"
    process = start("-c", f"import {modules}, sys; sys.exit('torch' in sys.modules)")
    assert process.wait() == 0, process.log()


@pytest.mark.skipif(not RUNTIME_PYTHON.exists(), reason="no run-time environment; make setup-runtime creates it")
def test_run_time_environment_in_which_these_tests_run_the_nodes_has_no_torch(start):
    process = start("-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)")
    assert process.wait() == 0


def test_recorded_times_are_written_at_deactivation(start, node_arguments, observer, tmp_path):
    path = tmp_path / "times.npz"
    start(*node_arguments(record_times=str(path), execution="staged", image_qos="reliable"))
    observer.wait_for_state("active")
    images = observer.publisher(Image, "image_raw", RELIABLE)
    found = observer.collect(Detection2DArray, "detections")

    def served() -> bool:
        images.publish(image_message(stamped(len(found))))
        return len(found) >= 5

    observer.spin_until(served, "detections")
    assert observer.change_state("deactivate")
    trace = read_trace(path)
    assert len(trace) >= 5
    assert (trace.total_ms > 0.0).all()


def test_a_file_for_times_in_no_folder_fails_configure_with_what_to_do(start, node_arguments, observer, tmp_path):
    start(*node_arguments(record_times=str(tmp_path / "none" / "times.npz")))
    assert "does not exist, make it first" in wait_for_error(observer).message

"""A backend that is missing, refuses or disappears: the node stays up, says so, and takes another where it may."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_processes import Observer, Process, image_message, key_of, stamped, values_of
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

STAND_IN = """
# A stand-in for TensorRT: ONNX Runtime under its name. It refuses graphs when told to, and its GPU is gone as long as
# the file GONE is there.
import os
import anydepth_perception.serving.model as loading
from anydepth_perception.backends import BackendError
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
from anydepth_perception.ros.__main__ import main

class StandIn(OnnxRuntimeBackend):
    name = "tensorrt"

    def build(self, model):
        if REFUSES:
            raise BackendError("stand-in: version 8.5 is too old for this bundle")
        return super().build(model)

    def load(self, serialized, name):
        engine = super().load(serialized, name)
        run = engine.run

        def run_unless_gone():
            if os.path.exists(GONE):
                raise BackendError("stand-in: the GPU is gone")
            run()

        engine.run = run_unless_gone
        return engine

create = loading.create_backend
loading.create_backend = lambda name, **options: StandIn() if name == "tensorrt" else create(name, **options)
main()
"""


@pytest.fixture
def gone(tmp_path) -> Path:
    """The file that takes the GPU of the stand-in away."""
    return tmp_path / "gone"


@pytest.fixture
def start_detector(start, node_arguments, gone):
    """Starts a detector with the stand-in."""

    def start_detector(*, refuses: bool = False, **parameters: object) -> Process:
        script = f"REFUSES = {refuses}\nGONE = {str(gone)!r}\n{STAND_IN}"
        return start("-c", script, *node_arguments(**{"backend": "auto", **parameters})[2:])

    return start_detector


def serve_one(observer: Observer) -> None:
    """Sends images until detections come back."""
    detections = observer.collect(Detection2DArray, "detections")
    images = observer.publisher(Image, "image_raw")
    header = stamped(0)

    def came() -> bool:
        images.publish(image_message(stamped(0)))
        return any(key_of(message.header) > key_of(header) for message in detections)

    observer.spin_until(came, "detections")


def send_until(observer: Observer, condition, what: str) -> DiagnosticStatus:
    """Sends images until the diagnostics fulfil a condition on status and values."""
    images = observer.publisher(Image, "image_raw")

    def found() -> DiagnosticStatus | None:
        images.publish(image_message(stamped(0)))
        status = observer.diagnostics.get("detector: detector")
        return status if status is not None and condition(status, values_of(status)) else None

    return observer.spin_until(found, f"diagnostics: {what}")


def test_backend_that_refuses_the_bundle_is_replaced_at_the_start_and_diagnostics_warn(start_detector, observer):
    detector = start_detector(refuses=True)
    observer.wait_for_state("active")
    status = observer.status(lambda status, values: values["state"] == "active", "an active node")
    serve_one(observer)
    values = values_of(status)
    assert status.level == DiagnosticStatus.WARN and "version 8.5 is too old" in status.message
    assert values["backend"].startswith("onnxruntime")
    assert values["backend_fallback"] == "tensorrt: stand-in: version 8.5 is too old for this bundle"
    assert len([line for line in detector.log().splitlines() if "version 8.5 is too old" in line]) == 1
    detector.end()


def test_backend_asked_for_by_name_that_refuses_the_bundle_fails_configure_and_another_may_be_named(
    start_detector, observer
):
    detector = start_detector(refuses=True, backend="tensorrt")
    status = observer.status(lambda status, values: status.level == DiagnosticStatus.ERROR, "an error")
    assert "version 8.5 is too old" in status.message and values_of(status)["state"] == "unconfigured"
    assert observer.set_parameter("backend", "onnxruntime").successful
    assert observer.change_state("configure") and observer.change_state("activate")
    serve_one(observer)
    detector.end()


def test_gpu_that_disappears_is_replaced_while_serving_and_diagnostics_warn(start_detector, observer, gone):
    detector = start_detector()
    observer.wait_for_state("active")
    serve_one(observer)
    gone.touch()
    replaced = send_until(
        observer,
        lambda status, values: values["backend"].startswith("onnxruntime") and status.level == DiagnosticStatus.WARN,
        "a warning on the other backend",
    )
    values = values_of(replaced)
    assert "failed while serving: " in values["backend_fallback"] and "the GPU is gone" in values["backend_fallback"]
    assert int(values["frames_failed"]) == 3
    serve_one(observer)
    assert observer.change_state("deactivate") and observer.change_state("activate")
    serve_one(observer)
    detector.end()


def test_gpu_asked_for_by_name_that_disappears_is_an_error_until_it_is_back(start_detector, observer, gone):
    detector = start_detector(backend="tensorrt")
    observer.wait_for_state("active")
    serve_one(observer)
    gone.touch()
    failing = send_until(
        observer,
        lambda status, values: status.level == DiagnosticStatus.ERROR and int(values["frames_failed"]) > 5,
        "an error with the failed frames",
    )
    assert "stand-in: the GPU is gone" in failing.message and "so far" in failing.message
    assert values_of(failing)["state"] == "active"
    gone.unlink()
    send_until(observer, lambda status, values: status.level != DiagnosticStatus.ERROR, "no error any more")
    detector.end()
    assert detector.log().count("the GPU is gone") <= 3

"""The node's engine cache: filled at the first start; where it cannot be, one clear line and a node that serves."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_processes import Observer, image_message, stamped, values_of
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

FULL_DISK = """
# Stands in for a disk without room: every entry of the engine cache fails to be written.
import errno, os
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.ros.__main__ import main
def write(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
EngineCache._write = write
main()
"""


def serve_one(observer: Observer) -> None:
    """Sends images until detections come back."""
    detections = observer.collect(Detection2DArray, "detections")
    images = observer.publisher(Image, "image_raw")

    def came() -> bool:
        images.publish(image_message(stamped(0)))
        return bool(detections)

    observer.spin_until(came, "detections")


def test_engines_of_the_first_start_are_those_of_the_second(start, node_arguments, observer, tmp_path):
    written = []
    for _ in range(2):
        detector = start(*node_arguments(cache_dir=str(tmp_path / "engines")))
        status = observer.status(lambda status, values: values["state"] == "active", "an active node")
        assert values_of(status)["engine_cache"] == str(tmp_path / "engines")
        written.append({path.name: path.stat().st_ino for path in (tmp_path / "engines").glob("*.engine")})
        detector.end()
        observer.diagnostics.clear()
    assert written[0] and written[0] == written[1]


def test_without_a_cache_nothing_is_written(start, node_arguments, observer, tmp_path):
    folder = tmp_path / "cache"
    detector = start(*node_arguments(cache_dir="none"), environment={"XDG_CACHE_HOME": str(folder)})
    status = observer.status(lambda status, values: values["state"] == "active", "an active node")
    assert values_of(status)["engine_cache"] == "none"
    assert not list(folder.rglob("*.engine"))
    detector.end()


@pytest.mark.parametrize("kind", ["not writable", "full disk"])
def test_cache_that_cannot_be_written_is_told_once_and_the_node_serves(
    start, node_arguments, observer, tmp_path, kind
):
    folder = tmp_path / "engines"
    arguments = node_arguments(cache_dir=str(folder))
    if kind == "not writable":
        folder.write_text("a file where the folder should be")  # a read-only folder does not stop root
        detector, reason = start(*arguments), "Not a directory"
    else:
        detector, reason = start("-c", FULL_DISK, *arguments[2:]), "No space left on device"
    status = observer.status(lambda status, values: values["state"] == "active", "an active node")
    serve_one(observer)
    assert status.level == DiagnosticStatus.WARN
    assert str(folder) in status.message and reason in status.message and "set cache_dir" in status.message
    assert len([line for line in detector.log().splitlines() if reason in line]) == 1
    detector.end()

"""Drives the real node over DDS at random: life cycle, parameters, cameras, good and hostile frames.

Prints JSON with what was done and found; ends with 1 where a bar is not met. `make soak SECONDS=1800` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "e2e"), str(Path(__file__).parent)]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from frames import good_compressed, good_image, hostile_compressed, hostile_image, odd_header  # noqa: E402
from measures import Findings, Footprint  # noqa: E402
from ros_processes import BEST_EFFORT, Observer, Process, runtime_python, stamped, values_of  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from anydepth_perception.ros.qos import use_image_profile  # noqa: E402

TOPICS = ("left/image_raw", "right/image_raw")
DEPTHS = ("auto", "auto", "full", "base", "FFEE.FFEE")
GOOD: dict[str, list[Any]] = {
    "deadline_ms": [0.0, 20.0, 60.0, 200],
    "camera_deadlines_ms": [[50.0, 90.0], [0.0, 80.0]],
    "score_threshold": [0.05, 0.3, 1.0],
    "class_score_thresholds": [["person:0.5"], ["person:0.1", "crate:0.9"]],
    "max_detections": [1, 100, 1000],
    "late_policy": ["drop", "run_base"],
    "miss_target": [0.005, 0.1],
    "min_depth": ["", "base"],
    "max_depth": ["", "full"],
    "roi": [[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 0.5, 1.0, 0.5, 0.0, 1.0, 1.0]],
    "class_allowlist": [["person"], ["person", "crate"]],
    "min_box_size": [0.0, 12.5],
}
BAD: dict[str, list[Any]] = {
    "deadline_ms": [-1.0, float("nan"), "fast"],
    "depth": ["deep", 3, "FFFF.FFFF.d9"],
    "roi": [[0.0, 1.0], [0.9, 0.0, 0.1, 1.0]],
    "mask": [["/nowhere.png"]],
    "class_allowlist": [["unicorn"]],
    "model": ["other"],
    "image_topics": [["x"]],
}


class Soak:
    """One node, an observer that drives it, and what was found."""

    def __init__(self, detector: Process, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.detector = detector
        self.findings = Findings()
        self.observer = Observer()
        self.compressed = False
        self.sent = dict.fromkeys(TOPICS, 0)
        self.publishers: dict[str, Any] = {}
        picture = np.zeros((48, 64), np.uint8)
        picture[:, 20:] = 255
        cv2.imwrite(str(folder / "mask.png"), picture)
        self.good = {**GOOD, "mask": [[""], [str(folder / "mask.png")], ["none", str(folder / "mask.png")]]}

    def cycle(self, seconds: float) -> None:
        """From unconfigured over a while of activity back to unconfigured, with its counters and its footprint."""
        rng, observer = self.rng, self.observer
        self.compressed = rng.random() < 0.4
        observer.set_parameter("image_transport", "compressed" if self.compressed else "raw")
        observer.set_parameter("execution", rng.choice(["whole", "whole", "staged"]))
        observer.set_parameter("image_qos", rng.choice(["best_effort", "reliable"]))
        self.change("configure")
        for _ in range(rng.randint(1, 2)):
            self.change("activate")
            self.restart_cameras()
            end = time.monotonic() + seconds / 2
            while time.monotonic() < end:
                self.step()
            self.check_counts()
            self.change("deactivate")
        self.change("cleanup")
        self.findings.footprints.append(Footprint.of(self.detector.pid))

    def step(self) -> None:
        """Something at random; mostly a frame."""
        act = self.rng.choices(
            [self.send, self.set_good, self.set_depth, self.set_bad, self.ask, self.restart_cameras, self.refused],
            [60, 8, 4, 4, 4, 1, 1],
        )[0]
        act()
        if self.detector.has_ended():
            raise RuntimeError(f"the node has ended:\n{self.detector.log()[-3000:]}")

    def send(self) -> None:
        topic = self.rng.choice(TOPICS)
        header = odd_header(stamped(self.rng.randrange(1000)), self.rng)
        if self.compressed:
            make = hostile_compressed if self.rng.random() < 0.2 else good_compressed
        else:
            make = hostile_image if self.rng.random() < 0.2 else good_image
        message = make(header, self.rng)
        self.publishers[topic].publish(message)
        self.sent[topic] += 1
        self.findings.count("frames_sent")
        self.spin(0.02)

    def set_good(self) -> None:
        name = self.rng.choice(list(self.good))
        self.timed_set(name, self.rng.choice(self.good[name]), accepted=True)

    def set_depth(self) -> None:
        letters = "".join(self.rng.choice("FE") for _ in range(8))
        depth = self.rng.choice([*DEPTHS, f"{letters[:4]}.{letters[4:]}"])
        self.timed_set("depth", depth, accepted=True)

    def set_bad(self) -> None:
        name = self.rng.choice(list(BAD))
        self.timed_set(name, self.rng.choice(BAD[name]), accepted=False)

    def timed_set(self, name: str, value: Any, *, accepted: bool) -> None:
        started = time.monotonic()
        result = self.observer.set_parameter(name, value)
        self.findings.set_ms.append((time.monotonic() - started) * 1e3)
        self.findings.count("parameters_set")
        if result.successful != accepted:
            self.findings.faults.append(f"{name} {value!r}: successful is {result.successful}: {result.reason}")
        if len(result.reason) > 1000 or "\n" in result.reason:
            self.findings.faults.append(f"{name}: a reason of {len(result.reason)} characters")

    def ask(self) -> None:
        if self.observer.state() != "active":
            self.findings.faults.append("the node is not active any more")
        self.observer.get_parameter("depth")
        self.observer.describe("roi")
        self.findings.count("services_asked", 3)

    def refused(self) -> None:
        if self.observer.change_state("configure"):
            self.findings.faults.append("configure was accepted while active")

    def change(self, label: str) -> None:
        self.findings.count(label)
        if not self.observer.change_state(label):
            raise RuntimeError(f"{label} failed:\n{self.detector.log()[-3000:]}")

    def restart_cameras(self) -> None:
        """Other publishers take the place of those that were; frames wait until they are found."""
        for publisher in self.publishers.values():
            self.observer.node.destroy_publisher(publisher)
        suffix, kind = ("/compressed", CompressedImage) if self.compressed else ("", Image)
        reliable = self.observer.get_parameter("image_qos") == "reliable"
        self.publishers = {
            topic: self.observer.publisher(kind, f"{topic}{suffix}", 10 if reliable else BEST_EFFORT)
            for topic in TOPICS
        }
        self.findings.count("camera_restarts")

    def check_counts(self) -> None:
        """Waits until nothing is under way, and looks at the counters of the activation."""
        self.spin(1.5)
        self.observer.status(lambda status, values: values["state"] == "active", "the counters")
        self.observer.status(lambda status, values: True, "the counters, once more")
        for topic in TOPICS:
            suffix = "/compressed" if self.compressed else ""
            status = self.observer.diagnostics[f"detector: /{topic}{suffix}"]
            self.findings.check_counts(topic, values_of(status), self.sent[topic])
            self.sent[topic] = 0

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.observer.spin_until(lambda: time.monotonic() >= end, "the time to pass")


def main() -> None:
    """Runs the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="aisle-yolo-t")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        use_image_profile()
        rclpy.init()
        parameters = {"autostart": "false", "image_topics": f"[{', '.join(TOPICS)}]", "model": options.model}
        line = [runtime_python(), "-m", "anydepth_perception.ros", "--ros-args"]
        for name, value in {**parameters, "backend": "onnxruntime"}.items():
            line += ["-p", f"{name}:={value}"]
        detector = Process(line, Path(folder) / "detector.log")
        try:
            faults, report = run(detector, Path(folder), options.seconds, options.seed)
        finally:
            detector.kill()
            rclpy.try_shutdown()
    print(json.dumps({"seed": options.seed, "faults": faults, **report}, indent=1))
    sys.exit(1 if faults else 0)


def run(detector: Process, folder: Path, seconds: float, seed: int) -> tuple[list[str], dict[str, Any]]:
    """Cycles until the time is over; what was found and done."""
    soak = Soak(detector, folder, seed)
    started = time.monotonic()
    try:
        while time.monotonic() - started < seconds:
            soak.cycle(min(60.0, max(10.0, seconds / 10)))
            done = time.monotonic() - started
            print(f"{done:.0f} s: {soak.findings.footprints[-1]}, {soak.findings.done}", file=sys.stderr, flush=True)
        detector.end(signal.SIGINT)
    except Exception as error:  # what the node did goes into the report, whatever ended the soak
        soak.findings.faults.append(f"{type(error).__name__}: {error}")
    soak.findings.check_log(detector.log())
    return soak.findings.conclude(), soak.findings.done


if __name__ == "__main__":
    main()

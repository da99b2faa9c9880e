"""Measures inference per rung, host time per frame, and image transport; the last line of output is JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anydepth_perception.aisle import AisleScene
from anydepth_perception.backends import BackendError
from anydepth_perception.bundle import BundleError
from anydepth_perception.depth.controller import DepthController
from anydepth_perception.detection.detector import Detections, Detector
from anydepth_perception.profile import fingerprint, measure_profile
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import add_detector_options, build_detector, fail

DEFAULT_SECONDS = 60.0
_MIN_ROUNDS = 5
_MAX_ROUNDS = 300
_SCENE_FRAMES = 8
_TRANSPORT_FRAMES = 100
_TRANSPORT_RATE_HZ = 30.0
_TRANSPORT_START_S = 6.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all measurements, within about BENCH_SECONDS of the environment."""
    parser = argparse.ArgumentParser(prog="bench", description=f"{__doc__} BENCH_SECONDS bounds its time.")
    add_detector_options(parser)
    with interruptible():
        _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> None:
    try:
        seconds = bench_seconds(os.environ.get("BENCH_SECONDS", ""), DEFAULT_SECONDS)
        detector = build_detector(options)
    except (BundleError, BackendError, ValueError) as error:
        fail(error)
    isolate_ros()
    width, height = options.image_size
    transport_frames = min(_TRANSPORT_FRAMES, max(10, int(seconds / 8 * _TRANSPORT_RATE_HZ)))
    transport_s = 2 * (_TRANSPORT_START_S + transport_frames / _TRANSPORT_RATE_HZ)
    rungs_and_host = measure_frames(detector, width, height, max(1.0, seconds - transport_s))
    result = {
        "machine": fingerprint(detector),
        "image_size": f"{width}x{height}",
        "rungs": rungs_and_host["rungs"],
        "host_ms_p50": rungs_and_host["host_ms_p50"],
        "host_ms_p95": rungs_and_host["host_ms_p95"],
        "host_parts_ms_p50": rungs_and_host["host_parts_ms_p50"],
        "rounds": rungs_and_host["rounds"],
        "controller_us_p50": controller_us(detector),
        "transport": transports(width, height, transport_frames),
    }
    print("\n".join(table(result)))
    print(json.dumps(result))


def isolate_ros() -> None:
    """Own domain, own machine: neither a robot's topics nor other tests disturb the measurement."""
    os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 100 + 1)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def bench_seconds(text: str, default: float) -> float:
    """The time to spend, from the text of BENCH_SECONDS; empty means the default.

    Raises:
        ValueError: it is not a number above 0.
    """
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"BENCH_SECONDS is {text!r}, expected a number of seconds above 0")
    return seconds


def measure_frames(detector: Detector, width: int, height: int, seconds: float) -> dict[str, Any]:
    """Serves aisle images at all depths in turn and times each part, as the node does it.

    Host time is all but inference: wrapping the image message, resize, decoding of the raw outputs, and building
    and publishing the detections. Without ROS the messages are left out, and `host_parts_ms_p50` shows it.
    """
    images = _aisle_images(width, height)
    wrap, publish, close = _message_steps(images, detector.bundle.class_names)
    parts: dict[str, list[float]] = {"wrap": [], "preprocess": [], "postprocess": [], "publish": []}
    host_ms: list[float] = []
    inference_ms: dict[str, list[float]] = {str(config): [] for config in detector.configs}
    rounds = 0
    end = time.perf_counter() + seconds
    while rounds < _MAX_ROUNDS and (rounds < _MIN_ROUNDS or time.perf_counter() < end):
        for config in detector.configs:
            start = time.perf_counter()
            image = wrap(rounds % len(images))
            wrapped = time.perf_counter()
            result = detector.detect(image, config)
            detected = time.perf_counter()
            publish(result.detections)
            published = time.perf_counter()
            inference_ms[str(config)].append(result.inference_ms)
            for part, value in (
                ("wrap", (wrapped - start) * 1e3),
                ("preprocess", result.preprocess_ms),
                ("postprocess", result.postprocess_ms),
                ("publish", (published - detected) * 1e3),
            ):
                parts[part].append(value)
            host_ms.append((published - start) * 1e3 - result.inference_ms)
        rounds += 1
    close()
    bundle = detector.bundle
    return {
        "rungs": {
            str(config): {
                "gflops": round(bundle.gflops(config), 4),
                "AP": round(bundle.average_precision(config), 4) if bundle.has_accuracy else None,
                "inference_ms_p50": _percentile(inference_ms[str(config)], 50),
                "inference_ms_p95": _percentile(inference_ms[str(config)], 95),
            }
            for config in detector.configs
        },
        "host_ms_p50": _percentile(host_ms, 50),
        "host_ms_p95": _percentile(host_ms, 95),
        "host_parts_ms_p50": {part: _percentile(values, 50) for part, values in parts.items()},
        "rounds": rounds,
    }


def controller_us(detector: Detector, calls: int = 2000) -> float:
    """Median time of one `choose` and one `observe`, in microseconds."""
    profile = measure_profile(detector, 3)
    controller = DepthController(profile.ladder(detector.bundle), profile.host_ms)
    rungs = controller.ladder.rungs
    times = []
    for index in range(calls):
        start = time.perf_counter()
        rung = controller.choose(profile.host_ms + 1.5 * rungs[index % len(rungs)].latency_ms)
        controller.observe(rung, rung.latency_ms * 1.05, profile.host_ms)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e6, 2)


def transports(width: int, height: int, frames: int) -> dict[str, Any]:
    """Transport with the shipped DDS profile and with the defaults; the reason where it cannot be measured."""
    try:
        from anydepth_perception.ros.qos import image_profile_path
        from anydepth_perception.tools.bench.transport import TransportError, measure_transport
    except ImportError as error:
        return {"not_measured": f"ROS is not installed here: {error}"}
    path = image_profile_path()
    results: dict[str, Any] = {}
    for name, profile in (("with_profile", path), ("without_profile", None)):
        if name == "with_profile" and path is None:
            results[name] = {"not_measured": "config/fastdds_images.xml was not found"}
            continue
        try:
            results[name] = measure_transport(
                profile, width=width, height=height, rate_hz=_TRANSPORT_RATE_HZ, frames=frames
            )
        except TransportError as error:
            results[name] = {"not_measured": str(error)}
    return results


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    machine = result["machine"]
    lines = [
        f"{machine['bundle']} on {machine['cpu_model']}, {machine['backend']} {machine['backend_version']} "
        f"{machine['precision']}, {machine['threads']} threads, {result['rounds']} interleaved rounds",
        "",
        "configuration   GFLOPs      AP   p50 ms   p95 ms",
    ]
    for config, values in result["rungs"].items():
        precision = "-" if values["AP"] is None else f"{values['AP']:.3f}"
        lines.append(
            f"{config:<14} {values['gflops']:>7.3f} {precision:>7} "
            f"{values['inference_ms_p50']:>8.2f} {values['inference_ms_p95']:>8.2f}"
        )
    parts = ", ".join(f"{part} {value:.2f}" for part, value in result["host_parts_ms_p50"].items())
    lines += [
        "",
        f"host work beside inference at {result['image_size']}: p50 {result['host_ms_p50']:.2f} ms, "
        f"p95 {result['host_ms_p95']:.2f} ms ({parts})",
        f"controller: {result['controller_us_p50']:.1f} us a frame",
    ]
    for name, values in result["transport"].items():
        lines.append(f"transport {name.replace('_', ' ')}: {_transport_words(values)}")
    return lines


def _transport_words(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values)
    if "not_measured" in values:
        return f"not measured: {values['not_measured']}"
    return (
        f"{values['received']} of {values['sent']} images received, "
        f"latency p50 {values['latency_ms_p50']} ms, p95 {values['latency_ms_p95']} ms"
    )


def _aisle_images(width: int, height: int) -> list[np.ndarray]:
    scene = AisleScene(0, width, height)
    return [scene.render(0.5 * index).image for index in range(_SCENE_FRAMES)]


def _message_steps(
    images: list[np.ndarray], class_names: Sequence[str]
) -> tuple[Callable[[int], np.ndarray], Callable[[Detections], None], Callable[[], None]]:
    """Steps that wrap image number i as it comes in a message, publish detections, and give up the node."""
    try:
        import rclpy
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header
        from vision_msgs.msg import Detection2DArray

        from anydepth_perception.detection.images import decode, fill_image
        from anydepth_perception.ros import qos
        from anydepth_perception.ros.messages import DetectionMessages
    except ImportError as error:
        print(f"host time without messages, ROS is not installed here: {error}", file=sys.stderr)
        return images.__getitem__, lambda detections: None, lambda: None
    messages = []
    for image in images:
        message = Image(header=Header(frame_id="camera"))
        fill_image(message, np.ascontiguousarray(image), "rgb8")
        messages.append(message)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("bench", context=context)
    publisher = node.create_publisher(Detection2DArray, "bench/detections", qos.DETECTIONS)
    builder = DetectionMessages(tuple(class_names))
    header = messages[0].header

    def close() -> None:
        node.destroy_node()
        rclpy.try_shutdown(context=context)

    return (
        lambda index: decode(messages[index]).image,
        lambda detections: publisher.publish(builder.fill(header, detections)),
        close,
    )


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 4)

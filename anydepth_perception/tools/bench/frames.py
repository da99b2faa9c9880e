"""Measures inference per rung, host time per frame, and image transport; the last line of output is JSON."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from anydepth_perception.aisle import AisleScene
from anydepth_perception.backends import BackendError
from anydepth_perception.bundle import BundleError
from anydepth_perception.detection.detector import Detections, Detector
from anydepth_perception.profile import fingerprint, measure_profile
from anydepth_perception.serving.model import make_controller
from anydepth_perception.tools.arguments import fail
from anydepth_perception.tools.bench.figures import HostFigures, NotMeasured, RungFigures, Transports, transport_lines
from anydepth_perception.tools.environment import bench_seconds, use_own_ros_domain
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import DetectorOptions, add_detector_options, build_detector

DEFAULT_SECONDS = 60.0
_MIN_ROUNDS = 5
_MAX_ROUNDS = 300
_SCENE_FRAMES = 8
_TRANSPORT_FRAMES = 100
_TRANSPORT_RATE_HZ = 30.0
_TRANSPORT_START_S = 6.0


class Report(HostFigures):
    """All that the measurement prints as JSON; `transport` is the reason where there is no ROS."""

    machine: Mapping[str, str]
    image_size: str
    rungs: dict[str, RungFigures]
    controller_us_p50: float
    transport: Transports | NotMeasured


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all measurements, within about BENCH_SECONDS of the environment."""
    parser = argparse.ArgumentParser(prog="bench frames", description=f"{__doc__} BENCH_SECONDS bounds its time.")
    add_detector_options(parser)
    with interruptible():
        report = measure(parser.parse_args(arguments, DetectorOptions()))
    print("\n".join(table(report)))
    print(json.dumps(report))


def measure(options: DetectorOptions) -> Report:
    """All figures; ends the tool with the reason where there is no detector to measure."""
    try:
        seconds = bench_seconds(os.environ.get("BENCH_SECONDS", ""), DEFAULT_SECONDS)
        detector = build_detector(options)
    except (BundleError, BackendError, ValueError) as error:
        fail(error)
    use_own_ros_domain()
    width, height = options.image_size
    transport_frames = min(_TRANSPORT_FRAMES, max(10, int(seconds / 8 * _TRANSPORT_RATE_HZ)))
    transport_s = 2 * (_TRANSPORT_START_S + transport_frames / _TRANSPORT_RATE_HZ)
    rungs, host = measure_frames(detector, width, height, max(1.0, seconds - transport_s))
    return {
        "machine": fingerprint(detector),
        "image_size": f"{width}x{height}",
        "rungs": rungs,
        **host,
        "controller_us_p50": controller_us(detector),
        "transport": transports(width, height, transport_frames),
    }


def measure_frames(
    detector: Detector, width: int, height: int, seconds: float
) -> tuple[dict[str, RungFigures], HostFigures]:
    """Serves aisle images at all depths in turn and times each part, as the node does it.

    Host time is all but inference: wrapping the image message, resize, decoding of the raw outputs, and building
    and publishing the detections. Without ROS the messages are left out, and `host_parts_ms_p50` shows it.

    Args:
        detector: what to measure, at each of its configurations.
        width: of the images, pixels.
        height: of the images, pixels.
        seconds: no round of all configurations begins after that, once there are a few.

    Returns:
        The figures of each configuration by its text form, and those of the work on the host.
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
    rungs: dict[str, RungFigures] = {
        str(config): {
            "gflops": round(bundle.gflops(config), 4),
            "AP": round(bundle.average_precision(config), 4) if bundle.has_accuracy else None,
            "inference_ms_p50": _percentile(inference_ms[str(config)], 50),
            "inference_ms_p95": _percentile(inference_ms[str(config)], 95),
        }
        for config in detector.configs
    }
    return rungs, {
        "host_ms_p50": _percentile(host_ms, 50),
        "host_ms_p95": _percentile(host_ms, 95),
        "host_parts_ms_p50": {part: _percentile(values, 50) for part, values in parts.items()},
        "rounds": rounds,
    }


def controller_us(detector: Detector, calls: int = 2000) -> float:
    """Median time of all that the controller does about one frame, in microseconds."""
    profile = measure_profile(detector, 3)
    controller = make_controller(detector, profile)
    rungs = controller.ladder.rungs
    times = []
    for index in range(calls):
        start = time.perf_counter()
        config = controller.begin(profile.host_ms + 1.5 * rungs[index % len(rungs)].latency_ms)
        controller.end(controller.latency_ms(config) * 1.05, profile.host_ms)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e6, 2)


def transports(width: int, height: int, frames: int) -> Transports | NotMeasured:
    """Transport with the shipped DDS profile and with the defaults; the reason where it cannot be measured."""
    try:
        from anydepth_perception.tools.bench.transport import measure_transports
    except ImportError as error:
        return NotMeasured(not_measured=f"ROS is not installed here: {error}")
    return measure_transports(width, height, frames, _TRANSPORT_RATE_HZ)


def table(report: Report) -> list[str]:
    """Lines for people."""
    machine = report["machine"]
    lines = [
        f"{machine['bundle']} on {machine['cpu_model']}, {machine['backend']} {machine['backend_version']} "
        f"{machine['precision']}, {machine['threads']} threads, {report['rounds']} interleaved rounds",
        "",
        "configuration   GFLOPs      AP   p50 ms   p95 ms",
    ]
    for config, figures in report["rungs"].items():
        precision = "-" if figures["AP"] is None else f"{figures['AP']:.3f}"
        lines.append(
            f"{config:<14} {figures['gflops']:>7.3f} {precision:>7} "
            f"{figures['inference_ms_p50']:>8.2f} {figures['inference_ms_p95']:>8.2f}"
        )
    parts = ", ".join(f"{part} {value:.2f}" for part, value in report["host_parts_ms_p50"].items())
    return [
        *lines,
        "",
        f"host work beside inference at {report['image_size']}: p50 {report['host_ms_p50']:.2f} ms, "
        f"p95 {report['host_ms_p95']:.2f} ms ({parts})",
        f"controller: {report['controller_us_p50']:.1f} us a frame",
        *transport_lines(report["transport"]),
    ]


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

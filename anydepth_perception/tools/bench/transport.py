"""Measures how images travel between two processes over DDS: how many arrive, and how long after publishing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anydepth_perception.ros.qos import PROFILE_VARIABLES, image_qos
from anydepth_perception.tools.interrupt import interruptible

TOPIC = "transport_bench/image"
_MATCH_TIMEOUT_S = 20.0
_DRAIN_S = 0.5


class TransportError(RuntimeError):
    """The measurement did not come about; the message says why."""


def measure_transport(
    profile: Path | None, *, width: int = 640, height: int = 480, rate_hz: float = 30.0, frames: int = 100
) -> dict[str, Any]:
    """Publishes images from one process to another one.

    Args:
        profile: Fast DDS profile file for both processes, None for the default transports.
        width: of the rgb8 images, pixels.
        height: of the rgb8 images, pixels.
        rate_hz: images per second.
        frames: images to send.

    Returns:
        sent and received (images), latency_ms_p50 and latency_ms_p95 from publishing to the callback (None if
        nothing arrived).

    Raises:
        TransportError: a process failed, or the two did not find each other.
    """
    environment = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
    if profile is not None:
        environment.update({name: str(profile) for name in PROFILE_VARIABLES})
    command = [sys.executable, "-m", "anydepth_perception.tools.bench.transport"]
    publish = [*command, "publish", str(width), str(height), str(rate_hz), str(frames)]
    limit_s = _MATCH_TIMEOUT_S + 4.0 * frames / rate_hz + 10.0
    receiver = subprocess.Popen(
        [*command, "receive"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        sender = subprocess.run(
            publish, env=environment, stdout=subprocess.PIPE, text=True, timeout=limit_s, check=False
        )
        output, _ = receiver.communicate("done\n", timeout=20.0)
    except subprocess.TimeoutExpired as error:
        raise TransportError(f"{' '.join(error.cmd[2:4])} took longer than {error.timeout:.0f} s") from error
    finally:
        if receiver.poll() is None:
            receiver.kill()
            receiver.wait()
    if sender.returncode or receiver.returncode:
        raise TransportError("a process of the transport measurement failed, its message stands above")
    return {**json.loads(sender.stdout.splitlines()[-1]), **json.loads(output.splitlines()[-1])}


def main(arguments: Sequence[str] | None = None) -> None:
    """One of the two processes; started by `measure_transport`."""
    parser = argparse.ArgumentParser(prog="transport", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    publish = roles.add_parser("publish")
    publish.add_argument("width", type=int)
    publish.add_argument("height", type=int)
    publish.add_argument("rate_hz", type=float)
    publish.add_argument("frames", type=int)
    roles.add_parser("receive")
    with interruptible():
        _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> None:
    import rclpy

    rclpy.init()
    try:
        if options.role == "publish":
            print(json.dumps(_publish(options.width, options.height, options.rate_hz, options.frames)))
        else:
            print(json.dumps(_receive()))
    except TransportError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    finally:
        rclpy.try_shutdown()


def _publish(width: int, height: int, rate_hz: float, frames: int) -> dict[str, int]:
    import numpy as np
    import rclpy
    from sensor_msgs.msg import Image

    from anydepth_perception.detection.images import fill_image

    node = rclpy.create_node("transport_bench_publisher")
    publisher = node.create_publisher(Image, TOPIC, image_qos("best_effort"))
    waited_until = time.monotonic() + _MATCH_TIMEOUT_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > waited_until:
            raise TransportError(f"no subscriber within {_MATCH_TIMEOUT_S:.0f} s")
        rclpy.spin_once(node, timeout_sec=0.05)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    message = Image()
    due = time.monotonic()
    for _ in range(frames):
        fill_image(message, pixels, "rgb8")
        # The steady clock is one for all processes of a machine.
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.monotonic_ns(), 10**9)
        publisher.publish(message)
        due += 1.0 / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
    # Images on their way are lost with the process that holds them.
    time.sleep(_DRAIN_S)
    node.destroy_node()
    return {"sent": frames}


def _receive() -> dict[str, float | int | None]:
    import numpy as np
    import rclpy
    from sensor_msgs.msg import Image

    latencies_ms: list[float] = []

    def on_image(message: Image) -> None:
        stamp = message.header.stamp
        latencies_ms.append((time.monotonic_ns() - (stamp.sec * 10**9 + stamp.nanosec)) / 1e6)

    node = rclpy.create_node("transport_bench_subscriber")
    node.create_subscription(Image, TOPIC, on_image, image_qos("best_effort"))
    done = threading.Thread(target=sys.stdin.readline, daemon=True)
    done.start()
    while done.is_alive():
        rclpy.spin_once(node, timeout_sec=0.05)
    node.destroy_node()
    percentiles = np.percentile(latencies_ms, [50, 95]).round(3).tolist() if latencies_ms else [None, None]
    return {"received": len(latencies_ms), "latency_ms_p50": percentiles[0], "latency_ms_p95": percentiles[1]}


if __name__ == "__main__":
    main()

"""Measures how images travel between two processes over DDS: how many arrive, and how long after publishing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from anydepth_perception.ros.qos import PROFILE_VARIABLES, image_profile_path
from anydepth_perception.tools.arguments import number, whole_number
from anydepth_perception.tools.bench.figures import NotMeasured, Transport, Transports, transport_lines
from anydepth_perception.tools.bench.transport_peers import MATCH_TIMEOUT_S
from anydepth_perception.tools.environment import use_own_ros_domain
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import add_image_size

RATE_HZ = 30.0
FRAMES = 100


class TransportError(RuntimeError):
    """The measurement did not come about; the message says why."""


class _Options(argparse.Namespace):
    image_size: tuple[int, int]
    rate_hz: float
    frames: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures with the shipped DDS profile and without it, and prints JSON on the last line."""
    parser = argparse.ArgumentParser(prog="bench transport", description=__doc__)
    add_image_size(parser)
    parser.add_argument(
        "--rate-hz", type=number(0, 1000, above=True), default=RATE_HZ, help="images per second (default: %(default)g)"
    )
    parser.add_argument("--frames", type=whole_number(1), default=FRAMES, help="images to send (default: %(default)s)")
    options = parser.parse_args(arguments, _Options())
    use_own_ros_domain()
    width, height = options.image_size
    with interruptible():
        results = measure_transports(width, height, options.frames, options.rate_hz)
    print("\n".join(transport_lines(results)))
    print(json.dumps({"image_size": f"{width}x{height}", "rate_hz": options.rate_hz, "transport": results}))


def measure_transports(width: int, height: int, frames: int, rate_hz: float = RATE_HZ) -> Transports:
    """Transport with the shipped DDS profile and with the defaults; the reason where it cannot be measured."""
    path = image_profile_path()
    results: dict[str, Transport | NotMeasured] = {}
    for name, profile in (("with_profile", path), ("without_profile", None)):
        if name == "with_profile" and path is None:
            results[name] = NotMeasured(not_measured="config/fastdds_images.xml was not found")
            continue
        try:
            results[name] = measure_transport(profile, width=width, height=height, rate_hz=rate_hz, frames=frames)
        except TransportError as error:
            results[name] = NotMeasured(not_measured=str(error))
    return results


def measure_transport(
    profile: Path | None, *, width: int = 640, height: int = 480, rate_hz: float = RATE_HZ, frames: int = FRAMES
) -> Transport:
    """Publishes images from one process to another one.

    Args:
        profile: Fast DDS profile file for both processes, None for the default transports.
        width: of the rgb8 images, pixels.
        height: of the rgb8 images, pixels.
        rate_hz: images per second.
        frames: images to send.

    Raises:
        TransportError: a process failed, or the two did not find each other.
    """
    environment = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
    if profile is not None:
        environment.update({name: str(profile) for name in PROFILE_VARIABLES})
    command = [sys.executable, "-m", "anydepth_perception.tools.bench.transport_peers"]
    publish = [*command, "publish", str(width), str(height), str(rate_hz), str(frames)]
    limit_s = MATCH_TIMEOUT_S + 4.0 * frames / rate_hz + 10.0
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
    sent, received = (json.loads(text.splitlines()[-1]) for text in (sender.stdout, output))
    return {
        "sent": sent["sent"],
        "received": received["received"],
        "latency_ms_p50": received["latency_ms_p50"],
        "latency_ms_p95": received["latency_ms_p95"],
    }

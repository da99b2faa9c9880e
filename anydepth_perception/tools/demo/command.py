"""`make demo`: runs camera and detector under a load that comes and goes, and shows what came of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import rclpy
from rclpy.signals import SignalHandlerOptions

from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.profile.load import CpuLoad
from anydepth_perception.ros.qos import use_image_profile
from anydepth_perception.tools.demo.calibration import Calibration, calibrate
from anydepth_perception.tools.demo.children import Child, DemoError
from anydepth_perception.tools.demo.load import BusyProcesses
from anydepth_perception.tools.demo.recorder import Recorder, Recording
from anydepth_perception.tools.demo.run import DemoOptions, Run
from anydepth_perception.tools.demo.summary import Summary, gain_in_words, print_summary, summarise
from anydepth_perception.tools.demo.timeline import draw_timeline
from anydepth_perception.tools.demo.turns import POLICIES, Turn
from anydepth_perception.tools.demo.video import write_video
from anydepth_perception.tools.environment import use_own_ros_domain
from anydepth_perception.tools.options import add_model

DEFAULT_SECONDS = 45.0
MIN_SECONDS = 6.0
STARTUP_S = 180.0
SETTLE_S = 1.0
STATUS_S = 0.5
TURN_S = 0.9
"""About so long a policy has its turn."""


def parse_options(arguments: Sequence[str] | None = None) -> DemoOptions:
    """The command line; the run's length is taken from DEMO_SECONDS where it is not given."""

    def seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not MIN_SECONDS <= value <= 3600:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {MIN_SECONDS:g} to 3600")
        return value

    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=os.environ.get("DEMO_SECONDS") or str(DEFAULT_SECONDS),
        help="length of the run; the load is there in its middle third",
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the results")
    add_model(parser)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second, 10 to 30")
    parser.add_argument("--seed", type=int, default=90_000, help="of the aisle; training and test use others")
    parser.add_argument("--score-threshold", type=float, default=0.25, help="of the detector, in [0, 1]")
    options = parser.parse_args(arguments)
    if not 10 <= options.rate <= 30:
        parser.error(f"--rate is {options.rate:g}; accepted is 10 to 30 images per second")
    return DemoOptions(
        seconds=options.seconds,
        output=options.output,
        model=options.model,
        rate_hz=options.rate,
        width=640,
        height=480,
        seed=options.seed,
        score_threshold=options.score_threshold,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the demo; exit code 1 and the reason in words where it cannot."""
    options = parse_options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # from here on there are processes to end
        signal.signal(number, signal.default_int_handler)
    # Its own domain on this machine alone, unless the user chose one: nothing else may answer for the two processes.
    use_own_ros_domain(unless_chosen=True)
    use_image_profile()
    try:
        bundle = Bundle.load(find_bundle(options.model))
        options.output.mkdir(parents=True, exist_ok=True)
        summary = run_demo(options, bundle)
    except (DemoError, BundleError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(summary))


def run_demo(options: DemoOptions, bundle: Bundle) -> Summary:
    """Starts the processes, calibrates, records, draws; the summary."""
    with processes(options, bundle) as (recorder, say):
        calibration = calibrate(recorder, say)
        say(
            f"full when idle {calibration.full_idle.p50:.1f} ms, base under the load "
            f"{calibration.base_loaded.p50:.1f} ms, full under the load {calibration.full_loaded.p50:.1f} ms: "
            f"deadline {calibration.deadline_ms:.1f} ms"
        )
        recorder.set_parameters(depth="auto", deadline_ms=calibration.deadline_ms)
        run, counts = record(recorder, options, bundle, calibration)
    say("drawing the video and the timeline")
    write_video(run, options.output / "demo.mp4")
    summary = summarise(run, counts, calibration, options)
    title = f"{bundle.name}: {gain_in_words(summary['policies'])}"
    cv2.imwrite(str(options.output / "timeline.png"), draw_timeline(run, title, summary["policies"]))
    (options.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_summary(summary, options)
    return summary


@contextlib.contextmanager
def processes(
    options: DemoOptions, bundle: Bundle, *, execution: str = "staged"
) -> Iterator[tuple[Recorder, Callable[[str], None]]]:
    """Camera (paused) and detector (active) as processes, and the recorder that observes them."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    say(f"starting the camera (aisle {options.width}x{options.height}, {options.rate_hz:g} Hz) and the detector")
    camera_arguments = [
        *("--source", "aisle", "--width", str(options.width), "--height", str(options.height)),
        *("--rate", str(options.rate_hz), "--seed", str(options.seed), "--prerender", "10"),
        *("--ground-truth", "--paused"),
    ]
    parameters = {
        "model": bundle.path, "autostart": "true", "score_threshold": options.score_threshold, "execution": execution
    }
    detector_arguments = ["--ros-args"]
    for name, value in parameters.items():
        detector_arguments += ["-p", f"{name}:={value}"]
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with (
            Child("anydepth_perception.tools.camera", camera_arguments, options.output / "camera.log") as camera,
            Child("anydepth_perception.ros", detector_arguments, options.output / "detector.log") as detector,
        ):
            children = (camera, detector)

            def check() -> None:
                for child in children:
                    child.check()

            recorder = Recorder(check)
            try:
                recorder.wait_until_active(STARTUP_S)
                say("the detector is active")
                recorder.run_camera(True)
                recording = recorder.start()
                recorder.spin_until(
                    lambda: recording.served and recording.truth and recording.detections, "the first detections"
                )
                yield recorder, say
            finally:
                recorder.close()
    finally:
        rclpy.try_shutdown()


def record(
    recorder: Recorder, options: DemoOptions, bundle: Bundle, calibration: Calibration
) -> tuple[Run, dict[str, int]]:
    """The run itself: idle, load, idle, in turns of all policies. Returns it with the counts of frames."""
    published_before = recorder.run_camera(False)
    recorder.spin_for(SETTLE_S)
    before = recorder.counts()
    recording = recorder.start()
    recorder.keep_images = True
    load = CpuLoad()
    cpu: list[tuple[float, float]] = []
    turns: list[Turn] = []
    rounds = max(1, round(options.seconds / (9 * TURN_S)))
    turn_s = options.seconds / (9 * rounds)
    recorder.run_camera(True)
    start_ns, start_s = time.time_ns(), time.monotonic()
    load_s = [0.0, 0.0]
    with contextlib.ExitStack() as stack:
        for phase in range(3):
            if phase == 1:
                stack.enter_context(BusyProcesses(calibration.niceness))
                load_s[0] = time.monotonic() - start_s
            elif phase == 2:
                stack.close()
                load_s[1] = time.monotonic() - start_s
            for turn in range(rounds * len(POLICIES)):
                # A load grows: whoever has the first turn in one round has the last in the next one.
                policy = POLICIES[(turn + turn // len(POLICIES)) % len(POLICIES)]
                recorder.set_parameters(depth=policy)
                changed_ns = time.time_ns()
                end_s = start_s + turn_s * (len(turns) + 1)
                while (left := end_s - time.monotonic()) > 0:
                    recorder.spin_for(min(left, STATUS_S))
                    share = load.sample()
                    if share is not None:
                        cpu.append((time.monotonic() - start_s, share))
                    print_status(recording, time.monotonic() - start_s, calibration.deadline_ms, policy, phase == 1)
                turns.append(Turn.between(policy, changed_ns, time.time_ns()))
    if sys.stdout.isatty():
        print()
    seconds = time.monotonic() - start_s
    published = recorder.run_camera(False) - published_before
    recorder.spin_for(SETTLE_S)
    after = recorder.counts()
    counts = {name: after[name] - before.get(name, 0) for name in after}
    counts["published"] = published
    run = Run(
        recording=recording,
        start_ns=start_ns,
        seconds=seconds,
        load_s=(load_s[0], load_s[1]),
        turns=turns,
        deadline_ms=calibration.deadline_ms,
        rate_hz=options.rate_hz,
        cpu=cpu,
        class_names=bundle.class_names,
        space=bundle.space,
        average_precision=bundle.average_precision,
    )
    return run, counts


def print_status(recording: Recording, time_s: float, deadline_ms: float, policy: str, loaded: bool) -> None:
    """One line on the newest frames: rewritten in place on a terminal, every second otherwise."""
    recent = recording.served[-10:]
    if not recent:
        return
    latency = statistics.median(frame.latency_ms for frame in recent)
    line = (
        f"{time_s:5.1f} s  {'LOAD' if loaded else 'idle'}  {policy:4}  depth {recent[-1].depth}  "
        f"latency {latency:5.1f} of {deadline_ms:.1f} ms  late {sum(frame.missed for frame in recent)} of {len(recent)}"
    )
    if sys.stdout.isatty():
        print(f"\r{line}   ", end="", flush=True)
    elif round(time_s / STATUS_S) % 4 == 0:
        print(line, flush=True)

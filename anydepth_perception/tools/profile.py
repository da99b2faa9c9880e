"""Measures the detector's configurations and segments on this machine; prints, keeps and draws the profile."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TypedDict

from anydepth_perception.backends import BackendError
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.depth.ladder import Ladder
from anydepth_perception.depth.space import DecisionPointError
from anydepth_perception.detection.detector import Detector
from anydepth_perception.profile import (
    MOST_RESIDUAL,
    Profile,
    ProfileError,
    RungTimes,
    StepTimer,
    Times,
    default_path,
    measure_profile,
)
from anydepth_perception.tools.arguments import fail, whole_number
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import DetectorOptions, add_cache_dir, add_detector_options, build_detector
from anydepth_perception.tools.profile_plot import NOT_INSTALLED, PlotError, can_draw, write_plot

_TIMES_HEAD = "  min ms   p50 ms   p95 ms   p99 ms"


class Options(DetectorOptions):
    """What the command line says; None for `output` and `plot` is where they lie by default."""

    all_configurations: bool
    segments: bool
    cache_dir: Path
    repeats: int
    output: Path | None
    plot: Path | None
    json: bool


class RungReport(TypedDict):
    """One configuration: cost of a frame, milliseconds, AP in [0, 1] where there is one."""

    gflops: float
    inference_ms_min: float
    inference_ms_p50: float
    inference_ms_p95: float
    inference_ms_p99: float
    sum_of_segments_ms: float
    AP: float | None
    AP_measured: bool
    on_ladder: bool


class Report(TypedDict):
    """What `--json` prints: where the profile is, what it is of, milliseconds by segment, and the configurations."""

    profile: str
    fingerprint: dict[str, str]
    load_state: dict[str, object]
    host_ms: float
    segments: dict[str, float]
    segments_measured: bool
    segments_over_rungs: float
    rungs: dict[str, RungReport]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the tool; with `--json`, the last line of its output is JSON."""
    with interruptible():
        _run(_parse(arguments))


def _run(options: Options) -> None:
    try:
        if options.plot and not can_draw():
            raise PlotError(f"--plot: {NOT_INSTALLED}")
        detector = build_detector(options, EngineCache(options.cache_dir))
        bundle = detector.bundle
        path = options.output or default_path(detector)
        plot = options.plot or path.with_suffix(".png")
        if plot == path:
            raise ProfileError(f"{path}: is to hold the profile and the picture; give another --plot")
        if options.all_configurations:
            _ensure_all(detector)
        steps = None
        if options.segments:
            steps = StepTimer(bundle, detector.backend, progress=_show_progress("step"))
        width, height = options.image_size
        profile = measure_profile(
            detector,
            options.repeats,
            image_width=width,
            image_height=height,
            steps=steps,
            progress=_show_progress("round"),
        )
        profile.save(path)
        ladder = profile.ladder(bundle)
        if can_draw():
            write_plot(profile, ladder, bundle, plot)
    except (BundleError, BackendError, DecisionPointError, ProfileError, PlotError) as error:
        fail(error)
    print("\n".join(table(profile, ladder, detector)))
    print(f"profile saved to {path}")
    print(f"AP over latency drawn in {plot}" if can_draw() else f"AP over latency not drawn: {NOT_INSTALLED}")
    if options.json:
        print(json.dumps(report(profile, ladder, bundle, path)))


def table(profile: Profile, ladder: Ladder, detector: Detector) -> list[str]:
    """Lines of what was measured where, the segments, all configurations, and the ladder."""
    facts, bundle = profile.fingerprint, detector.bundle
    lines = [
        f"{bundle.name} ({facts['bundle_precision']}) on {facts['cpu_model']}, {facts['cpus']} CPUs, power mode "
        f"{facts['power_mode']}",
        f"{facts['backend']} {facts['backend_version']} {facts['precision']}, {facts['threads']} threads, "
        f"{facts['execution']}",
        f"{profile.rounds} rounds; {profile.load_state}",
    ]
    load = profile.load_state.others_cpu_load
    if load is not None and profile.is_of_busy_machine:
        lines.append(
            f"WARNING: other processes took {100 * load:.0f} % of the CPUs meanwhile. The shortest times stand for "
            f"those of an idle machine; measure again when it is."
        )
    lines += ["", f"{f'host at {profile.image_width}x{profile.image_height}':<28} {_TIMES_HEAD}"]
    for name, times in (("resize", profile.preprocess), ("decode", profile.postprocess)):
        lines.append(f"{name:<28} {_shown(times)}")
    return [*lines, *_segment_table(profile, bundle), *_rung_table(profile, ladder, detector)]


def _segment_table(profile: Profile, bundle: Bundle) -> list[str]:
    if not profile.steps_measured:
        return []
    lines = ["", f"{'segment':<20}  GFLOPs {_TIMES_HEAD}"]
    for step, times in profile.steps.items():
        lines.append(f"{step!s:<20} {bundle.manifest.gflops[step]:>7.3f} {_shown(times)}")
    return lines


def _shown(times: Times) -> str:
    return " ".join(f"{milliseconds:>8.2f}" for milliseconds in astuple(times))


def _rung_table(profile: Profile, ladder: Ladder, detector: Detector) -> list[str]:
    bundle, measured = detector.bundle, profile.steps_measured
    sums = "   sum of segments" if measured else ""
    lines = ["", f"{'configuration':<20}  GFLOPs {_TIMES_HEAD}{sums}      AP   ladder"]
    for times in profile.times:
        predicted = profile.predict(times.config, bundle)
        error = predicted / profile.idle_ms(times.inference) - 1
        precision = f"{bundle.average_precision(times.config):.3f}" if bundle.has_accuracy else "-"
        lines.append(
            f"{times.config!s:<20} {bundle.gflops(times.config):>7.3f} {_shown(times.inference)}"
            + (f" {predicted:>8.2f} {error:>+8.1%}" if measured else "")
            + f" {precision:>7}{' ' if bundle.is_measured(times.config) else '~'}"
            + ("  *" if ladder.find(times.config) else "")
        )
    lines += ["", "* on the ladder: none is both faster and better   ~ estimated AP"]
    if measured:
        ratio = profile.steps_over_rungs(bundle)
        lines.append(f"sum of segments over measured time, median of all configurations: {ratio:.3f}")
    if len(detector.groups) > 1:
        lines += _group_table(profile, ladder, detector)
    residual = profile.fit(bundle).residual
    again = "; they contradict each other, measure again on an idle machine" if residual > MOST_RESIDUAL else ""
    lines.append(f"steps fitted to all configurations miss their times by {residual:.1%} (root mean square){again}")
    rungs = ", ".join(f"{rung.config} {rung.latency_ms:.1f} ms" for rung in ladder.rungs)
    return [*lines, f"ladder: {rungs}"]


def _group_table(profile: Profile, ladder: Ladder, detector: Detector) -> list[str]:
    """Medians of the groups between decision points, for the ladder."""
    names = [f"{entries[0]}..{entries[-1]}" if len(entries) > 1 else entries[0] for entries in detector.groups]
    lines = ["", f"{'p50 ms of group':<16}" + "".join(f"{name:>16}" for name in names)]
    for times in profile.times:
        if ladder.find(times.config):
            lines.append(f"{times.config!s:<16}" + "".join(f"{ms:>16.2f}" for ms in times.group_ms_p50))
    return [*lines, ""]


def report(profile: Profile, ladder: Ladder, bundle: Bundle, path: Path) -> Report:
    """The same for machines."""
    return {
        "profile": str(path),
        "fingerprint": dict(profile.fingerprint),
        "load_state": asdict(profile.load_state),
        "host_ms": round(profile.host_ms, 4),
        "segments": {str(step): round(ms, 4) for step, ms in profile.step_ms.items()},
        "segments_measured": profile.steps_measured,
        "segments_over_rungs": round(profile.steps_over_rungs(bundle), 4),
        "rungs": {str(times.config): _rung_report(times, profile, ladder, bundle) for times in profile.times},
    }


def _rung_report(times: RungTimes, profile: Profile, ladder: Ladder, bundle: Bundle) -> RungReport:
    return {
        "gflops": round(bundle.gflops(times.config), 4),
        "inference_ms_min": round(times.inference.min_ms, 4),
        "inference_ms_p50": round(times.inference.p50_ms, 4),
        "inference_ms_p95": round(times.inference.p95_ms, 4),
        "inference_ms_p99": round(times.inference.p99_ms, 4),
        "sum_of_segments_ms": round(profile.predict(times.config, bundle), 4),
        "AP": round(bundle.average_precision(times.config), 4) if bundle.has_accuracy else None,
        "AP_measured": bundle.is_measured(times.config),
        "on_ladder": ladder.find(times.config) is not None,
    }


def _ensure_all(detector: Detector) -> None:
    configs = sorted(detector.bundle.space.all(), key=detector.bundle.gflops)
    show = _show_progress("configuration")
    for number, config in enumerate(configs, 1):
        detector.ensure(config)
        show(number, len(configs))


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="profile", description=__doc__)
    add_detector_options(parser)
    parser.add_argument(
        "--all-configurations",
        action="store_true",
        help="every mixture of paths (256, times the decoder exits), beside the ladder; staged needs no more engines",
    )
    parser.add_argument(
        "--segments",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to measure every segment by itself too (default: yes)",
    )
    add_cache_dir(parser)
    parser.add_argument("--repeats", type=whole_number(3), default=30, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file to write (default: the user's cache folder)")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="PNG to draw (default: beside the profile)")
    parser.add_argument("--json", action="store_true", help="print JSON on the last line")
    return parser.parse_args(arguments, Options())


def _show_progress(what: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{what} {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    main()

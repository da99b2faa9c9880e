"""Measures the detector's configurations on this machine, prints the ladder and keeps the profile."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anydepth_perception.backends import BackendError
from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.depth.ladder import Ladder
from anydepth_perception.depth.profile import Profile, ProfileError, default_path, measure_profile
from anydepth_perception.tools.detector_options import add_detector_options, build_detector, fail, whole_number
from anydepth_perception.tools.interrupt import interruptible


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the tool; with `--json`, the last line of its output is JSON."""
    with interruptible():
        _run(_parse(arguments))


def _run(options: argparse.Namespace) -> None:
    try:
        detector = build_detector(options)
        width, height = options.image_size
        profile = measure_profile(
            detector, options.repeats, image_width=width, image_height=height, progress=_show_progress
        )
        path = options.output or default_path(detector)
        profile.save(path)
    except (BundleError, BackendError, ProfileError) as error:
        fail(error)
    ladder = profile.ladder(detector.bundle)
    print("\n".join(table(profile, ladder, detector.bundle)))
    print(f"profile saved to {path}")
    if options.json:
        print(json.dumps(report(profile, ladder, detector.bundle, path)))


def table(profile: Profile, ladder: Ladder, bundle: Bundle) -> list[str]:
    """Lines of a table of all configurations, those of the ladder marked."""
    facts = profile.fingerprint
    lines = [
        f"{bundle.name} on {facts['cpu_model']}, {facts['backend']} {facts['backend_version']} "
        f"{facts['precision']}, {facts['threads']} threads",
        f"host (resize and decode) {profile.host_ms:.2f} ms at {profile.image_width}x{profile.image_height}",
        "",
        "configuration   GFLOPs   p50 ms   p95 ms      AP   ladder",
    ]
    for times in profile.times:
        precision = f"{bundle.average_precision(times.config):.3f}" if bundle.has_accuracy else "-"
        mark = "*" if ladder.find(times.config) else ""
        lines.append(
            f"{times.config!s:<14} {bundle.gflops(times.config):>7.3f} {times.inference_ms_p50:>8.2f} "
            f"{times.inference_ms_p95:>8.2f} {precision:>7}"
            f"{' ' if bundle.is_measured(times.config) else '~'}  {mark}"
        )
    lines += ["", "* on the ladder: none is both faster and better   ~ estimated AP"]
    return lines


def report(profile: Profile, ladder: Ladder, bundle: Bundle, path: Path) -> dict[str, Any]:
    """The same for machines."""
    return {
        "profile": str(path),
        "fingerprint": profile.fingerprint,
        "host_ms": round(profile.host_ms, 4),
        "rungs": {
            str(times.config): {
                "gflops": round(bundle.gflops(times.config), 4),
                "inference_ms_p50": round(times.inference_ms_p50, 4),
                "inference_ms_p95": round(times.inference_ms_p95, 4),
                "AP": round(bundle.average_precision(times.config), 4) if bundle.has_accuracy else None,
                "AP_measured": bundle.is_measured(times.config),
                "on_ladder": ladder.find(times.config) is not None,
            }
            for times in profile.times
        },
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="profile", description=__doc__)
    add_detector_options(parser)
    parser.add_argument("--repeats", type=whole_number(3), default=30, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file to write (default: the user's cache folder)")
    parser.add_argument("--json", action="store_true", help="print JSON on the last line")
    return parser.parse_args(arguments)


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\rround {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""The profile: how long each configuration takes on one machine, kept in a file that other machines refuse."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.depth.estimator import usable_time
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.detector import DetectionResult, Detector

SCHEMA_VERSION = 1


class ProfileError(ValueError):
    """A profile that cannot be used here; the message names the file and what differs."""


@dataclass(frozen=True)
class RungTimes:
    """Inference time of one configuration, milliseconds."""

    config: DepthConfig
    inference_ms_p50: float
    inference_ms_p95: float


@dataclass(frozen=True)
class Profile:
    """Times measured on one machine, and the fingerprint of what was measured there.

    `preprocess_ms` and `postprocess_ms` are medians for a source image of `image_width` x `image_height`.
    """

    fingerprint: dict[str, str]
    image_width: int
    image_height: int
    preprocess_ms: float
    postprocess_ms: float
    times: tuple[RungTimes, ...]

    @property
    def host_ms(self) -> float:
        """Pre- and post-processing, milliseconds."""
        return self.preprocess_ms + self.postprocess_ms

    def rungs(self, bundle: Bundle) -> list[Rung]:
        """All profiled configurations with their AP in `bundle`."""
        return [
            Rung(times.config, times.inference_ms_p50, bundle.average_precision(times.config)) for times in self.times
        ]

    def ladder(self, bundle: Bundle) -> Ladder:
        """The Pareto-optimal ones of the profiled configurations, from base to full."""
        return Ladder.pareto(self.rungs(bundle), base=bundle.base, full=bundle.full)

    def covers(self, detector: Detector) -> bool:
        """Whether every configuration of `detector` was profiled."""
        return set(detector.configs) <= {times.config for times in self.times}

    def save(self, path: Path) -> None:
        """Writes the profile to `path` in one step, so that no reader sees half of it.

        Raises:
            ProfileError: the file cannot be written.
        """
        document = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "image_width": self.image_width,
            "image_height": self.image_height,
            "preprocess_ms": self.preprocess_ms,
            "postprocess_ms": self.postprocess_ms,
            "rungs": {
                str(times.config): {"p50_ms": times.inference_ms_p50, "p95_ms": times.inference_ms_p95}
                for times in self.times
            },
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(document, file, indent=1)
                    file.write("\n")
                os.replace(aside, path)
            except BaseException:
                os.unlink(aside)
                raise
        except OSError as error:
            raise ProfileError(f"{path}: cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path, detector: Detector) -> Profile:
        """Reads the profile in `path`, which must have been measured with this machine, bundle and backend.

        Raises:
            ProfileError: the file is missing or damaged, or its fingerprint differs; the message says in what.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ProfileError(f"{path}: no such profile") from error
        except (OSError, ValueError, RecursionError) as error:
            raise ProfileError(f"{path}: not a readable profile: {error}") from error
        try:
            profile = _parse(document, detector.bundle.num_exits)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"{path}: not a valid profile: {error!r}") from error
        expected = fingerprint(detector)
        differing = sorted(key for key in expected if profile.fingerprint.get(key) != expected[key])
        if differing:
            reasons = [f"{key} {profile.fingerprint.get(key)!r}, here it is {expected[key]!r}" for key in differing]
            raise ProfileError(f"{path}: measured with {'; '.join(reasons)}; measure again with the profile tool")
        return profile


def fingerprint(detector: Detector) -> dict[str, str]:
    """What times depend on: this machine's CPU, the backend and how it computes, the bundle."""
    return {
        "cpu_model": _cpu_model(),
        "cpus": str(os.cpu_count()),
        "backend": detector.backend.name,
        "backend_version": detector.backend.version,
        "precision": detector.backend.precision,
        "threads": str(detector.backend.threads),
        "bundle": detector.bundle.name,
        "bundle_sha256": detector.bundle.fingerprint,
    }


def default_path(detector: Detector) -> Path:
    """Where the profile of `detector` lies: in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    backend = detector.backend
    name = f"{detector.bundle.name}-{backend.name}-{backend.precision}-{backend.threads}.json"
    return cache / "anydepth_perception" / "profiles" / name


def measure_profile(
    detector: Detector,
    repeats: int = 20,
    *,
    image_width: int = 640,
    image_height: int = 480,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measures every configuration of `detector` on this machine as it is now; an idle one is best.

    Configurations take turns within each round, so that a disturbance meets all of them.

    Args:
        detector: with the engines to measure.
        repeats: rounds that count, at least 3; one more warms up.
        image_width: width of the source image, which pre-processing depends on.
        image_height: its height.
        progress: called after each round with the rounds done and the rounds in all.

    Raises:
        ValueError: `repeats` is below 3.
    """
    if repeats < 3:
        raise ValueError(f"repeats is {repeats}, expected at least 3")
    image = np.random.default_rng(0).integers(0, 256, (image_height, image_width, 3), np.uint8)
    results: dict[DepthConfig, list[DetectionResult]] = {config: [] for config in detector.configs}
    for round_index in range(repeats + 1):
        for config, collected in results.items():
            result = detector.detect(image, config)
            if round_index:
                collected.append(result)
        if progress is not None and round_index:
            progress(round_index, repeats)
    everything = [result for collected in results.values() for result in collected]
    return Profile(
        fingerprint=fingerprint(detector),
        image_width=image_width,
        image_height=image_height,
        preprocess_ms=statistics.median(result.preprocess_ms for result in everything),
        postprocess_ms=statistics.median(result.postprocess_ms for result in everything),
        times=tuple(_times(config, collected) for config, collected in results.items()),
    )


def load_or_measure(detector: Detector, repeats: int = 20) -> tuple[Profile, str]:
    """The profile that the profile tool saved for `detector`, or else a new one; and a sentence saying which and why.

    The new one is not saved: unlike for the tool, nobody said that the machine is idle now.
    """
    path = default_path(detector)
    try:
        profile = Profile.load(path, detector)
        if profile.covers(detector):
            return profile, f"profile read from {path}"
        reason = f"{path}: lacks some of the configurations"
    except ProfileError as error:
        reason = str(error)
    return measure_profile(detector, repeats), f"profile measured now; {reason}"


def _times(config: DepthConfig, results: list[DetectionResult]) -> RungTimes:
    times = [result.inference_ms for result in results]
    return RungTimes(config, statistics.median(times), float(np.percentile(times, 95)))


def _parse(document: Any, num_exits: int) -> Profile:
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {document['schema_version']} is not {SCHEMA_VERSION}")
    times = []
    for text, entry in document["rungs"].items():
        try:
            config = DepthConfig.parse(text, num_exits)
        except DepthConfigError as error:
            raise ValueError(str(error)) from error
        times.append(RungTimes(config, _milliseconds(entry["p50_ms"]), _milliseconds(entry["p95_ms"])))
    return Profile(
        fingerprint={str(key): str(value) for key, value in document["fingerprint"].items()},
        image_width=int(document["image_width"]),
        image_height=int(document["image_height"]),
        preprocess_ms=_milliseconds(document["preprocess_ms"]),
        postprocess_ms=_milliseconds(document["postprocess_ms"]),
        times=tuple(times),
    )


def _milliseconds(value: object) -> float:
    if not isinstance(value, (int, float)) or not usable_time(value):
        raise ValueError(f"{value!r} is not a time in milliseconds")
    return float(value)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()

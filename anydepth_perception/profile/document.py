"""The profile as data and as a JSON file (schema 2), which other machines and other bundles refuse."""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig, DepthConfigError
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.detection.detector import Detector
from anydepth_perception.profile.identity import fingerprint
from anydepth_perception.profile.machine import LoadState
from anydepth_perception.profile.segments import used_segments

SCHEMA_VERSION = 2

_MAX_FILE_BYTES = 16 << 20
_MAX_SIDE = 32767
_MAX_MS = 1e9
_AGAIN = "measure again with the profile tool"


class ProfileError(ValueError):
    """A profile that cannot be used here; the message names the file and what differs."""


@dataclass(frozen=True)
class Times:
    """The shortest of the measured times, their median and their tails; milliseconds, each > 0."""

    min_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class RungTimes:
    """Inference time of one configuration; `group_ms_p50` are medians of the parts in `Detector.groups`."""

    config: DepthConfig
    inference: Times
    group_ms_p50: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """Times measured on one machine, and the fingerprint of what was measured there.

    A profile stands for an idle machine, against which slowdowns are told. Its times are therefore medians where the
    machine was idle, and the shortest ones where others kept it busy: of few rounds, medians would then say more about
    the others, up to a base-net that looks slower than the super-net.

    Attributes:
        fingerprint: what the times depend on, in words.
        load_state: how busy and how fast the machine was meanwhile.
        rounds: how often each time was taken.
        image_width: width of the source image that pre-processing was measured with, pixels.
        image_height: its height.
        preprocess: time of resizing.
        postprocess: time of decoding, thresholds and NMS.
        times: of each configuration.
        segments: of each segment that some configuration runs, by name, in execution order.
        segments_measured: whether segments were measured one by one; else they are shares of whole configurations.
    """

    fingerprint: Mapping[str, str]
    load_state: LoadState
    rounds: int
    image_width: int
    image_height: int
    preprocess: Times
    postprocess: Times
    times: tuple[RungTimes, ...]
    segments: Mapping[str, Times]
    segments_measured: bool

    @property
    def is_of_busy_machine(self) -> bool:
        """Whether others are known to have kept the machine busy, so that the shortest times count."""
        return self.load_state.others_cpu_load is not None and not self.load_state.is_idle

    def idle_ms(self, times: Times) -> float:
        """What `times` tell of an idle machine, milliseconds."""
        return times.min_ms if self.is_of_busy_machine else times.p50_ms

    @property
    def host_ms(self) -> float:
        """Pre- and post-processing, milliseconds."""
        return self.idle_ms(self.preprocess) + self.idle_ms(self.postprocess)

    @property
    def segment_ms(self) -> Mapping[str, float]:
        """Milliseconds of each segment, by its name in the manifest."""
        return {name: self.idle_ms(times) for name, times in self.segments.items()}

    def predict(self, config: DepthConfig, bundle: Bundle) -> float:
        """Inference time of any configuration as the sum of its segments, milliseconds.

        Raises:
            DepthConfigError: the bundle has no such decoder exit.
        """
        return math.fsum(self.idle_ms(self.segments[name]) for name in bundle.manifest.segment_names(config))

    def segments_over_rungs(self, bundle: Bundle) -> float:
        """Sum of segments over measured time: median over the profiled configurations."""
        return statistics.median(
            self.predict(times.config, bundle) / self.idle_ms(times.inference) for times in self.times
        )

    def rungs(self, bundle: Bundle) -> list[Rung]:
        """All profiled configurations with their AP in `bundle`."""
        return [
            Rung(times.config, self.idle_ms(times.inference), bundle.average_precision(times.config))
            for times in self.times
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
            "fingerprint": dict(self.fingerprint),
            "load_state": asdict(self.load_state),
            "rounds": self.rounds,
            "image_width": self.image_width,
            "image_height": self.image_height,
            "preprocess": asdict(self.preprocess),
            "postprocess": asdict(self.postprocess),
            "rungs": {
                str(times.config): {**asdict(times.inference), "groups_p50_ms": list(times.group_ms_p50)}
                for times in self.times
            },
            "segments": {name: asdict(times) for name, times in self.segments.items()},
            "segments_measured": self.segments_measured,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=".profile.", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(document, file, indent=1, allow_nan=False)
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
        document = _read(path)
        version = document.get("schema_version")
        if isinstance(version, int) and version != SCHEMA_VERSION:
            raise ProfileError(
                f"{path}: written in format {_shown(version)}, this release reads format {SCHEMA_VERSION}; {_AGAIN}"
            )
        try:
            profile = _parse(document, detector.bundle.space.num_exits)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"lacks the key {error}" if isinstance(error, KeyError) else str(error)
            raise ProfileError(f"{path}: not a valid profile: {reason}; {_AGAIN}") from error
        _check_fingerprint(profile, detector, path)
        missing = [name for name in used_segments(detector.bundle.manifest) if name not in profile.segments]
        if missing:
            raise ProfileError(f"{path}: lacks the time of segment {missing[0]!r}; {_AGAIN}")
        return profile


def _read(path: Path) -> dict[str, Any]:
    try:
        if not os.path.lexists(path):
            raise ProfileError(f"{path}: no such profile")
        if not os.path.isfile(path):  # a pipe would never end
            raise ProfileError(f"{path}: not a file that can be read")
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ProfileError(f"{path}: more than {_MAX_FILE_BYTES} bytes, which no profile has; {_AGAIN}")
        document = json.loads(data.decode("utf-8"))
    except ProfileError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: not a readable profile: {error}; {_AGAIN}") from error
    if not isinstance(document, dict):
        raise ProfileError(f"{path}: not a valid profile: it holds a {type(document).__name__}; {_AGAIN}")
    return document


def _check_fingerprint(profile: Profile, detector: Detector, path: Path) -> None:
    expected = fingerprint(detector)
    differing = [key for key in expected if profile.fingerprint.get(key) != expected[key]]
    if differing:
        reasons = [
            f"{key} {_shown(profile.fingerprint.get(key))}, here it is {_shown(expected[key])}" for key in differing
        ]
        raise ProfileError(f"{path}: measured with {'; '.join(reasons)}; {_AGAIN}")


def _parse(document: dict[str, Any], num_exits: int) -> Profile:
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {_shown(document['schema_version'])}, expected {SCHEMA_VERSION}")
    times = tuple(_rung(text, entry, num_exits) for text, entry in document["rungs"].items())
    if not times:
        raise ValueError("rungs are empty")
    return Profile(
        fingerprint={key: _text(value, key) for key, value in document["fingerprint"].items()},
        load_state=_load_state(document["load_state"]),
        rounds=_whole_number(document["rounds"], "rounds", 10**9),
        image_width=_whole_number(document["image_width"], "image_width", _MAX_SIDE),
        image_height=_whole_number(document["image_height"], "image_height", _MAX_SIDE),
        preprocess=_times(document["preprocess"], "preprocess"),
        postprocess=_times(document["postprocess"], "postprocess"),
        times=times,
        segments={name: _times(entry, name) for name, entry in document["segments"].items()},
        segments_measured=_boolean(document["segments_measured"], "segments_measured"),
    )


def _rung(text: str, entry: dict[str, Any], num_exits: int) -> RungTimes:
    try:
        config = DepthConfig.parse(text, num_exits)
    except DepthConfigError as error:
        raise ValueError(_shown(str(error))) from error
    groups = entry["groups_p50_ms"]
    if not isinstance(groups, list):
        raise ValueError(f"groups_p50_ms of {text} is {_shown(groups)}, expected a list")
    return RungTimes(config, _times(entry, text), tuple(_positive(value, "groups_p50_ms") for value in groups))


def _load_state(entry: dict[str, Any]) -> LoadState:
    load, pinned = entry["others_cpu_load"], entry["clocks_pinned"]
    if load is not None and (isinstance(load, bool) or not isinstance(load, (int, float)) or not 0.0 <= load <= 1.0):
        raise ValueError(f"others_cpu_load is {_shown(load)}, expected a share in [0, 1] or null")
    return LoadState(
        others_cpu_load=load,
        cpu_governor=_text(entry["cpu_governor"], "cpu_governor"),
        cpu_mhz=_clock(entry, "cpu_mhz"),
        cpu_mhz_limit=_clock(entry, "cpu_mhz_limit"),
        gpu_mhz=_clock(entry, "gpu_mhz"),
        clocks_pinned=None if pinned is None else _boolean(pinned, "clocks_pinned"),
    )


def _clock(entry: dict[str, Any], key: str) -> float | None:
    return None if entry[key] is None else _positive(entry[key], key)


def _times(entry: dict[str, Any], place: str) -> Times:
    values = [_positive(entry[key], f"{key} of {place}") for key in ("min_ms", "p50_ms", "p95_ms", "p99_ms")]
    if values != sorted(values):
        raise ValueError(f"times of {_shown(place)} are {values}, expected them ascending from min_ms to p99_ms")
    return Times(*values)


def _positive(value: object, key: str) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 < value < _MAX_MS  # NaN fails
    if not good:
        raise ValueError(f"{key} is {_shown(value)}, expected a number above 0 and below {_MAX_MS:.0e}")
    return float(value)  # type: ignore[arg-type]


def _whole_number(value: object, key: str, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise ValueError(f"{key} is {_shown(value)}, expected a whole number from 1 to {maximum}")
    return value


def _boolean(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {_shown(value)}, expected true or false")
    return value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(key)} is {_shown(value)}, expected a text")
    return value


def _shown(value: object) -> str:
    """The value in a message: a damaged file may hold anything, of any size and depth."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)} entries"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

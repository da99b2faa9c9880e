"""The profile as data and as a JSON file (schema 4), which other machines and other bundles refuse."""

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

import numpy as np

from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.bundle.fields import Fields
from anydepth_perception.depth.ladder import Ladder, Rung
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace, Step
from anydepth_perception.detection.detector import Detector
from anydepth_perception.profile.fit import StepFit, fit_steps
from anydepth_perception.profile.identity import fingerprint
from anydepth_perception.profile.machine import LoadState
from anydepth_perception.profile.step_estimates import estimate_steps

SCHEMA_VERSION = 4

_MAX_FILE_BYTES = 16 << 20
_MAX_SIDE = 32767
_MIN_MS, _MAX_MS = 1e-9, 1e9
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
    """Inference time of one configuration; `group_ms_p50` are medians of the parts in `Detector.groups`.

    `samples_ms` are the times as they were taken, in their order; those of a round have the same place.
    """

    config: DepthConfig
    inference: Times
    group_ms_p50: tuple[float, ...]
    samples_ms: tuple[float, ...] = ()

    @property
    def scatter(self) -> float:
        """Relative standard deviation of the median, by the samples' middle half; 0 without samples."""
        if not self.samples_ms:
            return 0.0
        lower, middle, upper = np.percentile(self.samples_ms, (25, 50, 75)).tolist()
        return float(1.25 * (upper - lower) / 1.35 / middle / math.sqrt(len(self.samples_ms)))


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
        steps: of each way through each entry, in execution order.
        steps_measured: whether steps were measured one by one; else they are shares of whole configurations.
    """

    fingerprint: Mapping[str, str]
    load_state: LoadState
    rounds: int
    image_width: int
    image_height: int
    preprocess: Times
    postprocess: Times
    times: tuple[RungTimes, ...]
    steps: Mapping[Step, Times]
    steps_measured: bool

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
    def step_ms(self) -> Mapping[Step, float]:
        """Milliseconds of each way through each entry, as they were measured or estimated one by one."""
        return {step: self.idle_ms(times) for step, times in self.steps.items()}

    def predict(self, config: DepthConfig, bundle: Bundle) -> float:
        """Inference time of any configuration as the sum of its steps, milliseconds.

        Raises:
            DepthConfigError: the bundle has no such configuration.
        """
        return bundle.space.total(self.step_ms, config)

    def steps_over_rungs(self, bundle: Bundle) -> float:
        """Sum of steps over measured time: median over the profiled configurations."""
        return statistics.median(
            self.predict(times.config, bundle) / self.idle_ms(times.inference) for times in self.times
        )

    def fit(self, bundle: Bundle) -> StepFit:
        """Steps that add up to the measured configurations, none of them shorter than one that does less.

        Measured times scatter: of few rounds on a machine that others use too, neighbouring rungs come out in any
        order. What is expected of the steps beforehand are their own times, or shares by GFLOPs.
        """
        measured = {times.config: self.idle_ms(times.inference) for times in self.times}
        expected = self.step_ms if self.steps_measured else estimate_steps(bundle, measured.items())
        return fit_steps(bundle.space, expected, measured, {times.config: times.scatter for times in self.times})

    def rungs(self, bundle: Bundle) -> list[Rung]:
        """All profiled configurations with the sum of their fitted steps and their AP in `bundle`."""
        step_ms = self.fit(bundle).step_ms
        return [
            Rung(times.config, bundle.space.total(step_ms, times.config), bundle.average_precision(times.config))
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
                str(times.config): {
                    **asdict(times.inference),
                    "groups_p50_ms": list(times.group_ms_p50),
                    "samples_ms": list(times.samples_ms),
                }
                for times in self.times
            },
            "entries": self._entries(),
            "steps_measured": self.steps_measured,
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
            # Not a file of a bundle, but read by the same rules.
            profile = _parse(Fields(document, f"{path}: not a valid profile", "profile", is_root=True), detector.bundle)
        except BundleError as error:
            raise ProfileError(f"{error}; {_AGAIN}") from error
        _check_fingerprint(profile, detector, path)
        return profile

    def _entries(self) -> dict[str, dict[str, dict[str, float]]]:
        entries: dict[str, dict[str, dict[str, float]]] = {}
        for step, times in self.steps.items():
            entries.setdefault(step.entry, {})[step.way] = asdict(times)
        return entries


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


def _parse(root: Fields, bundle: Bundle) -> Profile:
    root.integer("schema_version", SCHEMA_VERSION, SCHEMA_VERSION)
    rungs, entries, texts = root.fields("rungs"), root.fields("entries"), root.fields("fingerprint")
    times = tuple(_rung(text, rungs, bundle.space) for text in rungs.names())
    if not times:
        raise rungs.error("are empty")
    return Profile(
        fingerprint={key: texts.text(key, may_be_empty=True) for key in texts.names()},
        load_state=_load_state(root.fields("load_state")),
        rounds=root.integer("rounds", 1, 10**9),
        image_width=root.integer("image_width", 1, _MAX_SIDE),
        image_height=root.integer("image_height", 1, _MAX_SIDE),
        preprocess=_times(root.fields("preprocess")),
        postprocess=_times(root.fields("postprocess")),
        times=times,
        steps={step: _times(entries.fields(step.entry).fields(step.way)) for step in bundle.space.steps},
        steps_measured=root.boolean("steps_measured"),
    )


def _rung(text: str, rungs: Fields, space: DepthSpace) -> RungTimes:
    fields = rungs.fields(text)
    try:
        config = space.parse(text)
    except DepthConfigError as error:
        raise rungs.error(f"hold another network's: {error}") from error
    groups, samples = (fields.numbers(key, _MIN_MS, _MAX_MS) for key in ("groups_p50_ms", "samples_ms"))
    return RungTimes(config, _times(fields), groups, samples)


def _load_state(fields: Fields) -> LoadState:
    pinned = None if fields.values.get("clocks_pinned", True) is None else fields.boolean("clocks_pinned")
    return LoadState(
        others_cpu_load=fields.optional_number("others_cpu_load", 0.0, 1.0),
        cpu_governor=fields.text("cpu_governor"),
        cpu_mhz=fields.optional_number("cpu_mhz", _MIN_MS, _MAX_MS),
        cpu_mhz_limit=fields.optional_number("cpu_mhz_limit", _MIN_MS, _MAX_MS),
        gpu_mhz=fields.optional_number("gpu_mhz", _MIN_MS, _MAX_MS),
        clocks_pinned=pinned,
    )


def _times(fields: Fields) -> Times:
    values = [fields.number(key, _MIN_MS, _MAX_MS) for key in ("min_ms", "p50_ms", "p95_ms", "p99_ms")]
    if values != sorted(values):
        raise fields.error(f"is {values}, expected times ascending from min_ms to p99_ms")
    return Times(*values)


def _shown(value: object) -> str:
    """The value in a message: a damaged file may hold anything, of any size and depth."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

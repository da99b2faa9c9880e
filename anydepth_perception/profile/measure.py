"""Measures a profile: configurations and steps in turns, on this machine as it is now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace

import cv2
import numpy as np

from anydepth_perception.bundle import Bundle
from anydepth_perception.bundle.plain_run import smooth_noise
from anydepth_perception.depth.space import DepthConfig, Step
from anydepth_perception.detection.detector import DetectionResult, Detector
from anydepth_perception.profile.document import Profile, ProfileError, RungTimes, Times
from anydepth_perception.profile.fit import MOST_RESIDUAL
from anydepth_perception.profile.identity import default_path, fingerprint
from anydepth_perception.profile.machine import LoadWatch
from anydepth_perception.profile.step_estimates import estimate_steps
from anydepth_perception.profile.steps import StepTimer

QUICK_ROUNDS = 10
"""Rounds that a node spends on a profile when it starts without one."""

QUICK_S = 10.0
"""Seconds after which it does with fewer."""

MIN_ROUNDS = 3


def measure_profile(
    detector: Detector,
    repeats: int = 30,
    *,
    image_width: int = 640,
    image_height: int = 480,
    steps: StepTimer | None = None,
    limit_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measures every configuration of `detector` on this machine as it is now; an idle one is best.

    Configurations and steps take turns within each round, so that a disturbance meets all of them.

    Args:
        detector: with the engines to measure.
        repeats: rounds that count, at least 3; one more warms up.
        image_width: width of the source image, which pre-processing depends on.
        image_height: its height.
        steps: of the detector's bundle, to be measured too; without, their times are estimated by GFLOPs.
        limit_s: seconds after which no round begins, once there are 3; None does all.
        progress: called after each round with the rounds done and the rounds in all.

    Raises:
        ValueError: `repeats` is below 3.
        BackendError: an inference failed.
    """
    if repeats < MIN_ROUNDS:
        raise ValueError(f"repeats is {repeats}, expected at least {MIN_ROUNDS}")
    image = _sample_image(detector.bundle, image_width, image_height)
    _round(detector, steps, image, detector.configs)
    watch, started = LoadWatch(), time.perf_counter()
    results: dict[DepthConfig, list[DetectionResult]] = {config: [] for config in detector.configs}
    step_times: dict[Step, list[float]] = {}
    rounds = 0
    while rounds < repeats:
        if limit_s is not None and rounds >= MIN_ROUNDS and time.perf_counter() - started > limit_s:
            break
        # The order alternates: none always comes after the same other one, whose data fill the caches.
        order = detector.configs if rounds % 2 else detector.configs[::-1]
        of_configs, of_steps = _round(detector, steps, image, order)
        for config, result in of_configs.items():
            results[config].append(result)
        for step, milliseconds in of_steps.items():
            step_times.setdefault(step, []).append(milliseconds)
        rounds += 1
        if progress is not None:
            progress(rounds, repeats)
    everything = [result for collected in results.values() for result in collected]
    times = tuple(_rung_times(config, collected) for config, collected in results.items())
    return Profile(
        fingerprint=fingerprint(detector),
        load_state=watch.state(),
        rounds=rounds,
        image_width=image_width,
        image_height=image_height,
        preprocess=_times([result.preprocess_ms for result in everything]),
        postprocess=_times([result.postprocess_ms for result in everything]),
        times=times,
        steps={step: _times(collected) for step, collected in step_times.items()} or _estimated_steps(detector, times),
        steps_measured=bool(step_times),
    )


def load_or_measure(detector: Detector, repeats: int = QUICK_ROUNDS, *, save: bool = False) -> tuple[Profile, str]:
    """The saved profile of `detector`, or else a new one, measured quickly; and a sentence saying which and why.

    Args:
        detector: with the engines to measure.
        repeats: rounds of a new profile, at least 3; fewer count where they take longer than `QUICK_S`.
        save: whether a new one is kept for the next start, given that the machine was otherwise idle meanwhile.
    """
    path = default_path(detector)
    saved: Profile | None = None
    try:
        saved = Profile.load(path, detector)
        if saved.covers(detector):
            return saved, f"profile read from {path}"
        reason = f"{path}: lacks some of the configurations"
    except ProfileError as error:
        reason = str(error)
    started = time.perf_counter()
    profile = measure_profile(detector, repeats, limit_s=QUICK_S)
    seconds = time.perf_counter() - started
    if saved is not None and saved.steps_measured:
        profile = replace(profile, steps=saved.steps, steps_measured=True)
    kept = _keep(profile, detector) if save else "not saved"
    return profile, f"profile measured now in {seconds:.1f} s ({profile.load_state}), {kept}; {reason}"


def _keep(profile: Profile, detector: Detector) -> str:
    if not profile.load_state.is_idle:
        return "not saved, as the machine was not idle"
    residual = profile.fit(detector.bundle).residual
    if residual > MOST_RESIDUAL:
        return f"not saved, as its times contradict each other by {100 * residual:.0f} %"
    try:
        profile.save(default_path(detector))
    except ProfileError as error:
        return f"not saved: {error}"
    return f"saved to {default_path(detector)}"


def _round(
    detector: Detector, steps: StepTimer | None, image: np.ndarray, order: Sequence[DepthConfig]
) -> tuple[dict[DepthConfig, DetectionResult], dict[Step, float]]:
    results = {config: detector.detect(image, config) for config in order}
    return results, {} if steps is None else steps.run(image)


def _estimated_steps(detector: Detector, times: Sequence[RungTimes]) -> dict[Step, Times]:
    configs = [rung.config for rung in times]
    by_kind = [
        estimate_steps(detector.bundle, list(zip(configs, milliseconds, strict=True)))
        for milliseconds in zip(*(astuple(rung.inference) for rung in times), strict=True)
    ]
    return {step: Times(*(estimates[step] for estimates in by_kind)) for step in by_kind[0]}


def _rung_times(config: DepthConfig, results: Sequence[DetectionResult]) -> RungTimes:
    groups = np.median([result.group_ms for result in results], axis=0)
    samples_ms = tuple(result.inference_ms for result in results)
    return RungTimes(config, _times(samples_ms), tuple(groups.tolist()), samples_ms)


def _times(milliseconds: Sequence[float]) -> Times:
    return Times(*np.percentile(milliseconds, (0, 50, 95, 99)).tolist())


def _sample_image(bundle: Bundle, width: int, height: int) -> np.ndarray:
    """A picture with objects in it, uint8 [height, width, 3] RGB: post-processing takes longer where there are some.

    It is the one that the bundle's references are of; smooth noise where it has none.
    """
    reference = bundle.read_reference()
    image = smooth_noise(bundle) if reference is None else reference.image
    return cv2.resize(image[0], (width, height))

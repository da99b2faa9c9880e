"""Loads what serving takes: a bundle, its engines on a backend that works here, and the ladder of their times."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anydepth_perception.backends import Backend, BackendError, BackendMissingError, create_backend, preference
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.depth.controller import AUTO, DepthController, DepthPolicy
from anydepth_perception.depth.ladder import default_configs
from anydepth_perception.depth.midframe import MidframePlanner
from anydepth_perception.depth.profile import Profile, ProfileError, load_or_measure
from anydepth_perception.detector import Detector
from anydepth_perception.execution import STAGED
from anydepth_perception.ros.parameters import Settings
from anydepth_perception.ros.thresholds import parse_thresholds

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fallback:
    """A backend that `auto` would have preferred, and why it is not in use, in one line.

    `is_fault` is False where its library is not installed: nothing is wrong with such a machine.
    """

    backend: str
    reason: str
    is_fault: bool = True


@dataclass(frozen=True)
class Model:
    """A bundle that is ready to serve: its detector with compiled engines, and the controller of their depth.

    `backend_name` is one of `preference`. `midframe` is None where depth is decided once per frame; `reserve_ms` is
    profiled time after the inference.
    """

    bundle: Bundle
    detector: Detector
    controller: DepthPolicy
    backend_name: str
    midframe: MidframePlanner | None = None
    reserve_ms: float = 0.0
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def backend(self) -> str:
        """Backend, its version and precision, in words. Quantised layers are the bundle's, on whatever backend."""
        backend = self.detector.backend
        precision = "int8" if self.bundle.manifest.provenance.get("precision") == "int8" else backend.precision
        return f"{backend.name} {backend.version} {precision}"


def load_model(
    settings: Settings, progress: Callable[[str], object], fallbacks: Sequence[Fallback] = ()
) -> Model:
    """Loads the bundle, compiles and warms the engines of a ladder, and profiles them.

    Where `backend` is `auto` and a backend fails at any of that, the next one is taken.

    Args:
        settings: names the bundle, the backend, the profile and the depth.
        progress: is told of each step, in words.
        fallbacks: backends that have failed already and are left out.

    Raises:
        BundleError, BackendError, ProfileError, DepthConfigError, ThresholdError: with the reason, naming the file
            where there is one.
    """
    bundle = Bundle.load(find_bundle(settings.model))
    parse_thresholds(settings.class_score_thresholds, bundle.class_names)
    failed = list(fallbacks)
    names = _names_left(settings, failed)
    for name in names:
        try:
            return _load_with(name, bundle, settings, progress, tuple(failed))
        except (BackendError, MemoryError) as error:
            failed.append(Fallback(name, _one_line(error), not isinstance(error, BackendMissingError)))
            if len(failed) == 1 and name == names[-1]:
                raise
            if name != names[-1]:
                _report(failed[-1], progress)
    raise BackendError(f"no backend works: {'; '.join(f'{item.backend}: {item.reason}' for item in failed)}")


def load_next_model(failing: Model, reason: str, settings: Settings, progress: Callable[[str], object]) -> Model:
    """Loads a model on the next backend, in place of one whose backend fails while it serves.

    Raises:
        BackendError: there is no other backend, or it does not work either. Others as for `load_model`.
    """
    fallbacks = (*failing.fallbacks, Fallback(failing.backend_name, f"failed while serving: {reason}"))
    if _names_left(settings, fallbacks):
        _report(fallbacks[-1], progress)
    # A profile that was named is the failing backend's.
    return load_model(replace(settings, profile=""), progress, fallbacks)


def _names_left(settings: Settings, fallbacks: Sequence[Fallback]) -> list[str]:
    failed = {fallback.backend for fallback in fallbacks}
    return [name for name in preference(settings.backend) if name not in failed]


def _report(fallback: Fallback, progress: Callable[[str], object]) -> None:
    text = f"backend {fallback.backend} is not used, the next one is tried: {fallback.reason}"
    if fallback.is_fault:
        _LOG.warning("%s", text)
    else:
        progress(text)


def _load_with(
    name: str, bundle: Bundle, settings: Settings, progress: Callable[[str], object], fallbacks: tuple[Fallback, ...]
) -> Model:
    backend = create_backend(
        name, threads=settings.threads, precision=settings.precision, workspace_mib=settings.workspace_mib
    )
    detector = _compile(bundle, backend, settings, progress)
    profile = _profile(settings.profile, detector, progress)
    if settings.depth != AUTO:
        detector.ensure(DepthConfig.parse(settings.depth, bundle.num_exits))
    controller = DepthController(profile.ladder(bundle), profile.host_ms, profiled=profile.rungs(bundle))
    rungs = ", ".join(f"{rung.config} {rung.latency_ms:.1f} ms" for rung in controller.ladder.rungs)
    progress(f"ladder of {bundle.name}: {rungs}; host {profile.host_ms:.1f} ms")
    midframe = MidframePlanner(bundle, profile.segment_ms) if settings.execution == STAGED else None
    return Model(bundle, detector, controller, name, midframe, profile.postprocess.p50_ms, fallbacks)


def _compile(
    bundle: Bundle, backend: Backend, settings: Settings, progress: Callable[[str], object]
) -> Detector:
    if settings.depth != AUTO:
        DepthConfig.parse(settings.depth, bundle.num_exits)  # refused before the engines are built
    configs = default_configs(bundle)
    points = settings.decision_points or None
    detector = Detector(bundle, backend, configs=(), execution=settings.execution, decision_points=points)
    for number, config in enumerate(configs, 1):
        started = time.perf_counter()
        detector.ensure(config)
        if settings.execution != STAGED:  # there, all was built by the constructor
            seconds = time.perf_counter() - started
            progress(f"engine {number} of {len(configs)}: {config} built in {seconds:.1f} s by {backend.name}")
    detector.warm_up()
    return detector


def _profile(path: str, detector: Detector, progress: Callable[[str], object]) -> Profile:
    if path:
        profile = Profile.load(Path(path).expanduser(), detector)
        if not profile.covers(detector):
            raise ProfileError(f"{path}: lacks some of the configurations of the ladder; measure again")
        progress(f"profile read from {path}")
        return profile
    profile, origin = load_or_measure(detector, save=True)
    progress(origin)
    return profile


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

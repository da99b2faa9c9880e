"""Loads what serving takes: a bundle, its engines on a backend that works here, and the ladder of their times."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anydepth_perception.backends import Backend, BackendError, BackendMissingError, create_backend, preference
from anydepth_perception.backends.engine_cache import TIMING_CACHE_FILE, EngineCache
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.depth.controller import AUTO, DepthController
from anydepth_perception.detection.detector import Detector
from anydepth_perception.execution import STAGED, WHOLE, Checked, EngineReady
from anydepth_perception.profile import Profile, ProfileError, load_or_measure
from anydepth_perception.serving.settings import AUTO_EXECUTION, Settings
from anydepth_perception.serving.thresholds import parse_thresholds

_LOG = logging.getLogger(__name__)

_WORTHWHILE = 1.03
"""Time of staged over that of whole up to which `execution: auto` takes staged."""

_COMPARED_FRAMES = 21

_DOUBTFUL_RESIDUAL = 0.2
"""Root mean square by which times contradict the sum of fitted steps, from which on diagnostics warn."""

NO_CACHE = "none"
"""Value of the parameter `cache_dir` that keeps no engines."""


@dataclass(frozen=True)
class Fallback:
    """A backend that `auto` would have preferred, and why it is not in use, in one line.

    `is_fault` is False where its library is not installed: nothing is wrong with such a machine.
    """

    backend: str
    reason: str
    is_fault: bool = True

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


@dataclass(frozen=True)
class Model:
    """A bundle that is ready to serve: its detector with compiled engines, and the controller of their depth.

    `backend_name` is one of `preference`.
    """

    bundle: Bundle
    detector: Detector
    controller: DepthController
    backend_name: str
    cache: EngineCache | None = None
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def backend(self) -> str:
        """Backend, its version and precision, in words. Quantised layers are the bundle's, on whatever backend."""
        backend = self.detector.backend
        precision = "int8" if self.bundle.manifest.provenance.get("precision") == "int8" else backend.precision
        return f"{backend.name} {backend.version} {precision}"

    def announce_cap(self, of_accelerator: bool, log_ratio: float) -> None:
        """Feeds a changed cap of a clock forward; a CPU's slows the engines too where they run on the CPU.

        Args:
            of_accelerator: whether it is the GPU's clock, else the CPU's.
            log_ratio: ln of the cap before over that of now.
        """
        if of_accelerator == (self.backend_name == "tensorrt"):
            self.controller.announce(log_ratio)
        if not of_accelerator:
            self.controller.announce(log_ratio, host=True)

    @property
    def cache_folder(self) -> str:
        """Where engines are kept, or `NO_CACHE`."""
        return str(self.cache.folder) if self.cache is not None else NO_CACHE

    @property
    def faults(self) -> list[str]:
        """What does not stop it from serving, but is not as it should be; one line each."""
        faults = [f"{item.backend} is not used: {item.reason}" for item in self.fallbacks if item.is_fault]
        if self.cache is not None and self.cache.problem:
            faults.append(self.cache.problem)
        faults.extend(self.controller.doubts)
        return faults


def load(
    model: str = "aisle-yolo-t",
    *,
    backend: str = "auto",
    threads: int = 0,
    execution: str = "whole",
    cache_dir: str = "",
    profile: str = "",
) -> Detector:
    """Loads a detector that runs at any depth or within a deadline: `detector(image, deadline_ms=40.0)`.

    Its engines are those of a ladder of depths. They are built once and kept in the cache; the first load of a bundle
    takes seconds, and longer with TensorRT. Their times are measured, unless the machine has a profile of them.

    Args:
        model: name of a shipped bundle, or path of a bundle's folder (NAME.anydepth).
        backend: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        threads: CPU threads, 0 to leave the choice to the backend.
        execution: `whole`, `staged`, in which depth may change within a call too, or `auto`, the better one here.
        cache_dir: folder of engines; empty for the user's cache, `none` for no cache.
        profile: path of a latency profile; empty for the one that was saved here, else one is measured.

    Raises:
        ParameterError, BundleError, BackendError, ProfileError: with the reason.
    """
    settings = Settings.from_values(
        {
            "model": model,
            "backend": backend,
            "threads": threads,
            "execution": execution,
            "cache_dir": cache_dir,
            "profile": profile,
        }
    )
    loaded = load_model(settings, lambda text: _LOG.info("%s", text))
    loaded.detector.controller = loaded.controller
    return loaded.detector


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
        BundleError, BackendError, ProfileError, DepthConfigError, ThresholdError, ParameterError: with the reason,
            naming the file where there is one.
    """
    bundle = Bundle.load(find_bundle(settings.model))
    parse_thresholds(settings.class_score_thresholds, bundle.class_names)
    settings.checked(None, bundle.class_names)
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
    raise BackendError(f"no backend works: {'; '.join(map(str, failed))}")


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
    cache = _engine_cache(settings.cache_dir)
    backend = create_backend(
        name,
        threads=settings.threads,
        precision=settings.precision,
        workspace_mib=settings.workspace_mib,
        timing_cache=cache.folder / TIMING_CACHE_FILE if cache is not None else None,
    )
    if settings.execution == AUTO_EXECUTION:
        detector = _compile_the_better(bundle, backend, cache, settings, progress)
    else:
        detector = _compile(bundle, backend, cache, settings, settings.execution, progress)
    profile = _profile(settings.profile, detector, progress)
    if settings.depth != AUTO:
        detector.ensure_for_now(bundle.space.parse(settings.depth))
    controller = make_controller(detector, profile)
    rungs = ", ".join(f"{rung.config} {rung.latency_ms:.1f} ms" for rung in controller.ladder.rungs)
    progress(f"ladder of {bundle.name}: {rungs}; host {profile.host_ms:.1f} ms")
    return Model(bundle, detector, controller, name, cache, fallbacks)


def make_controller(detector: Detector, profile: Profile) -> DepthController:
    """The controller of a detector with the times of a profile that covers it.

    With decision points every configuration may be chosen; without, those that are compiled.
    """
    bundle = detector.bundle
    configs = list(bundle.space.all()) if detector.decision_points else detector.configs
    config_ms = {rung.config: rung.latency_ms for rung in profile.rungs(bundle)}
    fit = profile.fit(bundle)
    controller = DepthController(
        bundle.space,
        fit.step_ms,
        {config: bundle.average_precision(config) for config in configs},
        preprocess_ms=profile.idle_ms(profile.preprocess),
        postprocess_ms=profile.idle_ms(profile.postprocess),
        points=detector.decision_points,
        config_ms={config: ms for config, ms in config_ms.items() if config in configs},
    )
    if fit.residual > _DOUBTFUL_RESIDUAL and not profile.is_of_busy_machine:
        controller.doubts.append(
            f"profile: its times contradict each other by {100 * fit.residual:.0f} % though the machine was idle; "
            f"frames at several depths will settle it, or measure again with the profile tool"
        )
    return controller


def _engine_cache(cache_dir: str) -> EngineCache | None:
    if cache_dir == NO_CACHE:
        return None
    return EngineCache(Path(cache_dir).expanduser() if cache_dir else None)


def _compile(
    bundle: Bundle,
    backend: Backend,
    cache: EngineCache | None,
    settings: Settings,
    execution: str,
    progress: Callable[[str], object],
) -> Detector:
    if settings.depth != AUTO:
        bundle.space.parse(settings.depth)  # refused before the engines are built
    # Under `auto` they are for staged; given to `whole` by name, they are refused.
    points = () if (settings.execution, execution) == (AUTO_EXECUTION, WHOLE) else settings.decision_points
    started = time.perf_counter()
    configs = bundle.default_configs()
    detector = Detector(
        bundle,
        backend,
        configs=(),
        execution=execution,
        decision_points=points or None,
        cache=cache,
        progress=lambda event: _tell(event, progress),
    )
    for config in configs:
        detector.ensure(config)
    detector.warm_up(1)
    progress(f"{len(configs)} rungs: engines ready in {time.perf_counter() - started:.1f} s on {backend.name}")
    return detector


def _compile_the_better(
    bundle: Bundle,
    backend: Backend,
    cache: EngineCache | None,
    settings: Settings,
    progress: Callable[[str], object],
) -> Detector:
    """Staged where that costs little time at full depth, so that decisions within a frame win more than it; else whole.

    On made-up loads such decisions are worth a tenth of a frame's time, on recorded ones of a busy CPU some percent.
    """
    whole, staged = (
        _compile(bundle, backend, cache, settings, execution, progress) for execution in (WHOLE, STAGED)
    )
    image = np.zeros((bundle.manifest.input.height, bundle.manifest.input.width, 3), np.uint8)
    times: dict[str, list[float]] = {WHOLE: [], STAGED: []}
    for _ in range(_COMPARED_FRAMES):
        for name, detector in ((WHOLE, whole), (STAGED, staged)):
            times[name].append(detector.detect(image, bundle.full).inference_ms)
    ratio = statistics.median(times[STAGED]) / statistics.median(times[WHOLE])
    chosen = staged if ratio <= _WORTHWHILE else whole
    progress(
        f"execution auto: staged takes {ratio:.2f} of the time of whole at full depth, so it is "
        f"{STAGED if chosen is staged else WHOLE} (staged up to {_WORTHWHILE})"
    )
    return chosen


def _tell(event: EngineReady | Checked, progress: Callable[[str], object]) -> None:
    if isinstance(event, EngineReady):
        origin = "read from the cache" if event.cached else "built"
        progress(f"engine {event.name} {origin} in {event.seconds:.1f} s")


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

"""Builds a detector's engines into the engine cache before deployment, and checks what they compute."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from anydepth_perception.backends import BackendError, create_backend
from anydepth_perception.backends.engine_cache import TIMING_CACHE_FILE, EngineCache
from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.depth.space import DecisionPointError, DepthConfigError
from anydepth_perception.execution import STAGED, WHOLE, Checked, EngineReady, Execution, decision_points_of
from anydepth_perception.tools.arguments import fail
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import EngineOptions, add_cache_dir, add_engine_options


class Options(EngineOptions):
    """What the command line says; `config` are texts of configurations, None for the ladder."""

    config: list[str] | None
    cache_dir: Path


class CacheError(RuntimeError):
    """Engines that could not be kept, which is all that they were built for."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the tool; its exit status is 1 where an engine is missing in the end."""
    with interruptible():
        try:
            build(_parse(arguments))
        except (BundleError, BackendError, DepthConfigError, DecisionPointError, CacheError) as error:
            fail(error)


def build(options: Options) -> None:
    """Builds what the options ask for and prints one line for each engine and each check.

    Raises:
        BundleError: the bundle is not found or not valid.
        BackendError: the backend is not usable, refuses a graph, or an engine is wrong.
        DepthConfigError: a configuration is malformed, or has an exit that the bundle lacks.
        DecisionPointError: a decision point does not exist, or two are too far apart.
        CacheError: the cache folder cannot be written.
    """
    bundle = Bundle.load(find_bundle(options.model))
    configs = [bundle.space.parse(text) for text in options.config or ()]
    if not configs:
        configs = list(bundle.default_configs(options.rungs))
    _check_folder(options.cache_dir)
    cache = EngineCache(options.cache_dir)
    backend = create_backend(
        options.backend,
        threads=options.threads,
        precision=options.precision,
        workspace_mib=options.workspace_mib,
        timing_cache=cache.folder / TIMING_CACHE_FILE,
    )
    print(f"{bundle.name} on {backend.name} {backend.version}, {backend.precision}, for {backend.device}", flush=True)
    report = Report(len(configs))
    points = decision_points_of(options.execution, bundle.space, options.decision_points)
    execution = Execution(bundle, backend, points, cache=cache, progress=report)
    for config in configs:
        execution.ensure(config)
    if cache.problem:
        raise CacheError(cache.problem)
    print(f"{report.summary()}; in {cache.folder}")


class Report:
    """Prints what happens while engines are prepared."""

    def __init__(self, num_configs: int) -> None:
        """In whole execution there are `num_configs` engines; staged execution says itself how many there are."""
        self._num_configs = num_configs
        self._started = time.perf_counter()
        self._engines: list[EngineReady] = []

    def __call__(self, event: EngineReady | Checked) -> None:
        """Prints one line about an engine or a check."""
        if isinstance(event, Checked):
            print(f"        outputs of {event.config} differ by {event.difference:.2g}, at most {event.tolerance:g}")
            return
        self._engines.append(event)
        total = max(event.total, self._num_configs) if event.total == 1 else event.total
        origin = "from the cache" if event.cached else f"built in {event.seconds:.1f} s"
        print(
            f"[{len(self._engines):>2}/{total}] {event.name}: {origin}, {event.size_bytes / 1e6:.1f} MB"
            f"{self._time_left(total)}",
            flush=True,
        )

    def summary(self) -> str:
        """What was done, in one line."""
        cached = sum(engine.cached for engine in self._engines)
        size = sum(engine.size_bytes for engine in self._engines)
        return (
            f"{len(self._engines)} engines ready in {time.perf_counter() - self._started:.1f} s: "
            f"{len(self._engines) - cached} built, {cached} from the cache, {size / 1e6:.1f} MB"
        )

    def _time_left(self, total: int) -> str:
        """Estimated from the engines that were built so far, as if none of the rest were in the cache."""
        left = total - len(self._engines)
        built = [engine.seconds for engine in self._engines if not engine.cached]
        return f", about {left * sum(built) / len(built):.0f} s left" if left and built else ""


def _check_folder(folder: Path) -> None:
    """Finds out before the first engine is built whether it can be kept."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CacheError(f"{folder}: cannot be written: {error.strerror}; give another --cache-dir") from error


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="build", description=__doc__)
    add_engine_options(parser)
    parser.add_argument(
        "--config",
        action="append",
        help=f"for {WHOLE}: a configuration to build, as full, base or FFEE.EEEE; may be repeated "
        f"(default: the ladder that the node starts with)",
    )
    add_cache_dir(parser)
    options = parser.parse_args(arguments, Options())
    if options.execution == STAGED and options.config:
        parser.error(f"--config is for {WHOLE}: {STAGED} execution builds what all configurations need")
    if options.execution == WHOLE and options.decision_points:
        parser.error(f"--decision-points is for {STAGED}: {WHOLE} execution decides once per frame")
    return options


if __name__ == "__main__":
    main()

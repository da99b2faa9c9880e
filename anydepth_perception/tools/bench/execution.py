"""Measures what depth on demand costs: staged against whole, a change of depth, the memory of a ladder, long runs."""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from anydepth_perception.backends import BackendError, create_backend
from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.execution import EXECUTIONS, STAGED, WHOLE, Execution, decision_points_of
from anydepth_perception.profile.load import process_memory_bytes
from anydepth_perception.tools.arguments import fail, whole_number
from anydepth_perception.tools.bench.interleaved import measure_in_turns, median_ratio
from anydepth_perception.tools.interrupt import interruptible
from anydepth_perception.tools.options import add_backend, add_model, add_rungs, add_threads

_MEGABYTE = 1e6
_STEADY_FRAMES = 3


class Options(argparse.Namespace):
    """What the command line says."""

    model: str
    backend: str
    threads: int
    rungs: int
    rounds: int
    switches: int
    frames: int
    memory: bool
    execution: str


class Memory(TypedDict):
    """Resident memory of a process in megabytes: before it loads anything, in all, and what came to it."""

    imports_mb: float
    rss_mb: float
    growth_mb: float


class LadderMemory(TypedDict):
    """Resident memory of whole execution with a ladder, and of staged execution, over that of one rung."""

    ladder_rss_over_rung: float
    ladder_growth_over_rung: float
    staged_rss_over_rung: float
    memory: dict[str, Memory]


class RandomDepths(TypedDict):
    """Frames at random depths: how many, what memory grew by in megabytes, how many put out wrong numbers."""

    frames: int
    rss_growth_mb: float
    differing_frames: int


class Report(LadderMemory):
    """All that the measurement prints as JSON: ratios by configuration, or by execution."""

    staged_over_whole: dict[str, float]
    switch_over_steady: dict[str, float]
    random_depths: dict[str, RandomDepths] | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the measurements and prints JSON on the last line."""
    with interruptible():
        options = _parse(arguments)
        try:
            report = memory_report(options) if options.memory else measure(options)
        except (BundleError, BackendError) as error:
            fail(error)
        print(json.dumps(report))


def measure(options: Options) -> Report:
    """All figures: ratios of times are medians of ratios taken in turns, memory is of fresh processes."""
    bundle = Bundle.load(find_bundle(options.model))
    backend = create_backend(options.backend, threads=options.threads)
    configs = bundle.default_configs(options.rungs)
    whole, staged = (Execution(bundle, backend, decision_points_of(name, bundle.space)) for name in (WHOLE, STAGED))
    for config in configs:
        whole.ensure(config)
    for execution in (whole, staged):
        draw_noise(execution)
    return {
        "staged_over_whole": {
            str(config): round(staged_over_whole(whole, staged, config, options.rounds), 4)
            for config in (bundle.full, bundle.base)
        },
        "switch_over_steady": {
            name: round(switch_over_steady(execution, configs, options.switches), 4)
            for name, execution in ((WHOLE, whole), (STAGED, staged))
        },
        **ladder_memory(options.model, options.backend, options.threads, len(configs)),
        "random_depths": {
            name: random_depths(execution, _choices(bundle, name, configs), options.frames)
            for name, execution in ((WHOLE, whole), (STAGED, staged))
        }
        if options.frames
        else None,
    }


def staged_over_whole(whole: Execution, staged: Execution, config: DepthConfig, rounds: int) -> float:
    """Median ratio of staged to whole latency at `config`, measured in turns."""
    whole.ensure(config)
    contenders = {WHOLE: lambda: whole.run(config), STAGED: lambda: staged.run(config)}
    return median_ratio(measure_in_turns(contenders, min_rounds=rounds, max_rounds=rounds), STAGED, WHOLE)


def switch_over_steady(execution: Execution, configs: Sequence[DepthConfig], switches: int, seed: int = 0) -> float:
    """Median over changes of depth of the first frame's latency over that of a steady frame at the same depth.

    Steady is the median of the frames that follow without a change.
    """
    picks = random.Random(seed)
    ratios, before = [], configs[0]
    for _ in range(switches):
        config = picks.choice([other for other in configs if other != before])
        first = _seconds(execution, config)
        steady = statistics.median(_seconds(execution, config) for _ in range(_STEADY_FRAMES))
        ratios.append(first / steady)
        before = config
    return statistics.median(ratios)


def random_depths(
    execution: Execution, configs: Sequence[DepthConfig], frames: int, seed: int = 0
) -> RandomDepths:
    """Growth of resident memory over frames at random depths, and how many put out other numbers than alone."""
    expected = {config: _result(execution, config) for config in configs}
    picks = random.Random(seed)
    before, differing = process_memory_bytes() or 0, 0
    for _ in range(frames):
        config = picks.choice(configs)
        execution.run(config)
        if not (np.array_equal(execution.boxes, expected[config][0])
                and np.array_equal(execution.logits, expected[config][1])):
            differing += 1
    growth = (process_memory_bytes() or 0) - before
    return {"frames": frames, "rss_growth_mb": round(growth / _MEGABYTE, 3), "differing_frames": differing}


def memory_report(options: Options) -> Memory:
    """Resident memory of this process with the engines of some rungs: before loading anything, and in all."""
    before = _resident_mb()
    bundle = Bundle.load(find_bundle(options.model))
    backend = create_backend(options.backend, threads=options.threads)
    execution = Execution(bundle, backend, decision_points_of(options.execution, bundle.space))
    configs = bundle.default_configs(options.rungs) if options.rungs > 1 else (bundle.full,)
    for config in configs:
        execution.ensure(config)
        execution.run(config)
    after = _resident_mb()
    return {"imports_mb": round(before, 1), "rss_mb": round(after, 1), "growth_mb": round(after - before, 1)}


def ladder_memory(model: str, backend: str, threads: int, rungs: int) -> LadderMemory:
    """Resident memory of processes with one rung, with `rungs` of them, and with staged execution, and its ratios.

    Raises:
        BackendError: one of the processes failed.
    """
    one, ladder, all_stages = (
        _memory_in_a_fresh_process(model, backend, threads, execution, count)
        for execution, count in ((WHOLE, 1), (WHOLE, rungs), (STAGED, rungs))
    )
    return {
        "ladder_rss_over_rung": round(ladder["rss_mb"] / one["rss_mb"], 3),
        "ladder_growth_over_rung": round(ladder["growth_mb"] / one["growth_mb"], 3),
        "staged_rss_over_rung": round(all_stages["rss_mb"] / one["rss_mb"], 3),
        "memory": {"rung": one, "ladder": ladder, "staged": all_stages},
    }


def _memory_in_a_fresh_process(
    model: str, backend: str, threads: int, execution: str, rungs: int
) -> Memory:
    command = [sys.executable, "-m", "anydepth_perception.tools.bench", "execution", "--memory"]
    command += ["--model", model, "--backend", backend, "--threads", str(threads)]
    command += ["--execution", execution, "--rungs", str(rungs)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BackendError(f"measuring memory failed: {result.stderr.strip()}")
    return json.loads(result.stdout.splitlines()[-1])


def _choices(bundle: Bundle, name: str, configs: Sequence[DepthConfig]) -> Sequence[DepthConfig]:
    """Rungs for whole execution; for staged, which compiles nothing per configuration, as many mixtures beside."""
    if name == WHOLE:
        return configs
    picks = random.Random(1)
    exits = range(1, bundle.space.num_exits + 1) or [None]
    return [*configs, *(
        DepthConfig(tuple(picks.random() < 0.5 for _ in bundle.full.full_paths), picks.choice(exits)) for _ in configs
    )]


def draw_noise(execution: Execution) -> None:
    """Fills the image of an execution with noise."""
    image = execution.image
    image[:] = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)


def _result(execution: Execution, config: DepthConfig) -> tuple[np.ndarray, np.ndarray]:
    execution.run(config)
    return execution.boxes.copy(), execution.logits.copy()


def _seconds(execution: Execution, config: DepthConfig, clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    execution.run(config)
    return clock() - started


def _resident_mb() -> float:
    gc.collect()
    return (process_memory_bytes() or 0) / _MEGABYTE


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="bench execution", description=__doc__)
    add_model(parser)
    add_backend(parser)
    add_threads(parser)
    add_rungs(parser, fewest=1)
    parser.add_argument("--rounds", type=whole_number(1), default=30, help="of staged and whole (default: %(default)s)")
    parser.add_argument("--switches", type=whole_number(1), default=200, help="depth changes (default: %(default)s)")
    parser.add_argument("--frames", type=whole_number(0), default=0, help="frames at random depths, 10000 say, or 0")
    parser.add_argument("--memory", action="store_true", help="measure the memory of this process, nothing else")
    parser.add_argument("--execution", choices=EXECUTIONS, default=WHOLE, help="with --memory (default: %(default)s)")
    return parser.parse_args(arguments, Options())

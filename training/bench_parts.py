"""The parts of the benchmark: each measures one side of the run time and returns its figures."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from anydepth_perception.backends import Backend, create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.config import DepthConfig
from anydepth_perception.detection.detector import Detector
from anydepth_perception.execution import STAGED, WHOLE, Execution, decision_points_of
from anydepth_perception.tools import quantize
from anydepth_perception.tools.bench.execution import draw_noise, ladder_memory, switch_over_steady
from anydepth_perception.tools.bench.frames import measure_frames
from anydepth_perception.tools.bench.interleaved import Times, measure_in_turns, ratios
from anydepth_perception.tools.environment import use_own_ros_domain
from training.bench_networks import (
    LoneEngine,
    Monolithic,
    PlainSession,
    export_peer,
    export_plainly,
    largest_difference,
    random_network,
)
from training.bench_plan import NotMeasured
from training.weights import load_weights

RUNGS = 8
SWITCHES = 200
IMAGE_SIZES = ((640, 480), (1920, 1080))
"""Width and height of the source images that host work is measured for."""

PLAIN = "monolithic_plain"
MONOLITHIC = "monolithic"

_FEWEST_SWITCHES = 20
_CALIBRATION_IMAGES = 16
"""The times of an INT8 network do not depend on its ranges, so that few will do."""

_SAME_OUTPUTS = 1e-3
"""Contenders whose raw outputs differ by more do not compute the same, and are not compared."""


@dataclass
class BundleUnderTest:
    """What is measured: a bundle, the weights it was exported from (None where they are not at hand), all backends.

    Executions are compiled when they are first asked for, and kept.
    """

    bundle: Bundle
    weights: Path | None
    backends: dict[str, Backend]
    scratch: Path
    _executions: dict[tuple[str, str], Execution] = field(default_factory=dict)

    @property
    def reference(self) -> Backend:
        """The backend whose figures stand for all: the first, ONNX Runtime."""
        return next(iter(self.backends.values()))

    @property
    def rungs(self) -> tuple[DepthConfig, ...]:
        """The configurations of the ladder, base to full."""
        return self.bundle.default_configs(RUNGS)

    def execution(self, backend: str, kind: str) -> Execution:
        """The execution of that kind with all rungs compiled."""
        if (backend, kind) not in self._executions:
            execution = Execution(self.bundle, self.backends[backend], decision_points_of(kind, self.bundle.space))
            for config in self.rungs:
                execution.ensure(config)
            draw_noise(execution)
            self._executions[backend, kind] = execution
        return self._executions[backend, kind]


def measure_rungs(tested: BundleUnderTest, seconds: float) -> dict[str, Any]:
    """Every rung whole, and full and base also staged and as monolithic exports, on every backend, all in turns."""
    bundle, rungs = tested.bundle, tested.rungs
    ends = (bundle.full, bundle.base)
    exports = {config: _monolithic_export(tested, config) for config in ends} if tested.weights else {}
    contenders: dict[str, Callable[[], object]] = {}
    for name, backend in tested.backends.items():
        whole, staged = tested.execution(name, WHOLE), tested.execution(name, STAGED)
        for config in rungs:
            contenders[f"{name} {WHOLE} {config}"] = _runner(whole, config)
        for config in ends:
            contenders[f"{name} {STAGED} {config}"] = _runner(staged, config)
        for config, model in exports.items():
            lone = LoneEngine(backend, onnx.load_model_from_string(model), whole.image)
            contenders[f"{name} {MONOLITHIC} {config}"] = lone.run
            if name == "onnxruntime":
                plain = PlainSession(model, whole.image)
                contenders[f"{name} {PLAIN} {config}"] = plain.run
                whole.run(config)
                check_same(f"the monolithic export of {config}", plain.run(), [whole.boxes, whole.logits])
    times = measure_in_turns(contenders, seconds=seconds)
    figures = {}
    for name in tested.backends:
        of = {key.removeprefix(f"{name} "): values for key, values in times.items() if key.startswith(f"{name} ")}
        figures[name] = _figures_of_backend(bundle, rungs, of)
    return {
        "rounds": len(next(iter(times.values()))),
        "backends": figures,
        "monolithic_left_out": None if exports else "the weights that the bundle was exported from are not at hand",
    }


def _figures_of_backend(bundle: Bundle, rungs: tuple[DepthConfig, ...], times: Times) -> dict[str, Any]:
    full, base = f"{WHOLE} {bundle.full}", f"{WHOLE} {bundle.base}"

    def compared(above: str, below: str) -> dict[str, Any]:
        pairs = {str(config): (f"{above} {config}", f"{below} {config}") for config in (bundle.full, bundle.base)}
        return {config: figure(times, *pair) for config, pair in pairs.items() if set(pair) <= times.keys()}

    return {
        "rungs": {
            str(config): {
                "gflops": round(bundle.gflops(config), 4),
                "AP": round(bundle.average_precision(config), 4) if bundle.has_accuracy else None,
                "AP_measured": bundle.is_measured(config),
                "ms": round(statistics.median(times[f"{WHOLE} {config}"]), 3),
                "over_full": figure(times, f"{WHOLE} {config}", full),
            }
            for config in rungs
        },
        "base_over_full": figure(times, base, full),
        "base_over_full_vs_gflops": _against_gflops(bundle, figure(times, base, full)),
        "staged_over_whole": compared(STAGED, WHOLE),
        "whole_over_monolithic": compared(WHOLE, PLAIN),
        "whole_over_monolithic_with_our_options": compared(WHOLE, MONOLITHIC),
        "ms": {key: round(statistics.median(values), 3) for key, values in times.items()},
    }


def measure_host(tested: BundleUnderTest, seconds: float) -> dict[str, Any]:
    """Host work of a frame beside its inference, for every size of source images."""
    use_own_ros_domain()
    detector = Detector(tested.bundle, tested.reference, configs=(tested.bundle.full,))
    detector.warm_up()
    figures = {}
    for width, height in IMAGE_SIZES:
        _, figures[f"{width}x{height}"] = measure_frames(detector, width, height, seconds / len(IMAGE_SIZES))
    return figures


def measure_switches(tested: BundleUnderTest, seconds: float) -> dict[str, Any]:
    """First frame after a change of depth over a steady frame, whole and staged, on every backend."""
    figures: dict[str, dict[str, Any]] = {name: {} for name in tested.backends}
    end = time.perf_counter() + seconds
    pairs = [(name, kind) for name in tested.backends for kind in (WHOLE, STAGED)]
    for index, (name, kind) in enumerate(pairs):
        execution = tested.execution(name, kind)
        started = time.perf_counter()
        switch_over_steady(execution, tested.rungs, _FEWEST_SWITCHES, seed=1)
        each_s = (time.perf_counter() - started) / _FEWEST_SWITCHES
        share = (end - time.perf_counter()) / (len(pairs) - index)
        switches = min(SWITCHES, max(_FEWEST_SWITCHES, int(share / each_s)))
        ratio = switch_over_steady(execution, tested.rungs, switches)
        figures[name][kind] = {"median": round(ratio, 4), "switches": switches}
    return figures


def measure_memory(tested: BundleUnderTest, _: float) -> dict[str, Any]:
    """Resident memory with one rung, with the ladder, and staged, each in a process of its own."""
    path = str(tested.bundle.path)
    return {name: ladder_memory(path, name, 0, len(tested.rungs)) for name in tested.backends}


def measure_int8(tested: BundleUnderTest, seconds: float) -> dict[str, Any]:
    """Float32 over INT8 on every CPU backend, each with the bundle that is quantised for it."""
    configs = (tested.bundle.full, tested.bundle.base)
    contenders: dict[str, Callable[[], object]] = {}
    names = [name for name in tested.backends if name in ("onnxruntime", "openvino")]
    for name in names:
        quantized = _quantize(tested, name)
        int8 = Execution(quantized, tested.backends[name])
        for config in configs:
            int8.ensure(config)
            contenders[f"{name} int8 {config}"] = _runner(int8, config)
            contenders[f"{name} float32 {config}"] = _runner(tested.execution(name, WHOLE), config)
        draw_noise(int8)
    times = measure_in_turns(contenders, seconds=seconds)
    return {
        name: {
            str(config): {
                "speedup": figure(times, f"{name} float32 {config}", f"{name} int8 {config}"),
                "float32_ms": round(statistics.median(times[f"{name} float32 {config}"]), 3),
                "int8_ms": round(statistics.median(times[f"{name} int8 {config}"]), 3),
            }
            for config in configs
        }
        for name in names
    }


def measure_peer(tested: BundleUnderTest, seconds: float, size: str = "r18", side: int = 640) -> dict[str, Any]:
    """Ours over Hugging Face's RT-DETR in a plain session, with the same weights, at full depth."""
    peer = export_peer(size, side, tested.scratch)
    full = peer.bundle.full
    ours = Execution(peer.bundle, create_backend("onnxruntime"))
    ours.ensure(full)
    np.copyto(ours.image, peer.image)
    theirs = PlainSession(peer.model, peer.pixel_values)
    ours.run(full)
    logits, boxes = (output[0] for output in theirs.run())
    left_top, right_bottom = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    expected = np.concatenate([left_top, right_bottom, logits], axis=1)
    difference = largest_difference(np.concatenate([ours.boxes[0], ours.logits[0]], axis=1), expected)
    if not difference <= _SAME_OUTPUTS:
        raise NotMeasured(f"the peer's outputs differ from ours by {difference:.1e}, at most {_SAME_OUTPUTS} counts")
    times = measure_in_turns({"ours": _runner(ours, full), "peer": theirs.run}, seconds=seconds, frames=2)
    return {
        "network": f"RT-DETR {size.upper()}, {side}x{side}, without FINE, {full}",
        "ours_over_peer": figure(times, "ours", "peer"),
        "largest_difference": difference,
        "rounds": len(times["ours"]),
        "ms": {name: round(statistics.median(values), 2) for name, values in times.items()},
    }


def measure_random(tested: BundleUnderTest, seconds: float, name: str, side: int = 640) -> dict[str, Any]:
    """Base over full of a network with random weights, against its GFLOPs."""
    bundle = random_network(name, side, tested.scratch)
    whole = Execution(bundle, create_backend("onnxruntime"))
    contenders = {}
    for end, config in (("full", bundle.full), ("base", bundle.base)):
        whole.ensure(config)
        contenders[end] = _runner(whole, config)
    draw_noise(whole)
    times = measure_in_turns(contenders, seconds=seconds, frames=1)
    ratio = figure(times, "base", "full")
    return {
        "gflops": round(bundle.gflops(bundle.full), 2),
        "gflops_ratio": round(bundle.gflops(bundle.base) / bundle.gflops(bundle.full), 4),
        "base_over_full": ratio,
        "base_over_full_vs_gflops": _against_gflops(bundle, ratio),
        "rounds": len(times["full"]),
        "ms": {end: round(statistics.median(values), 2) for end, values in times.items()},
    }


def figure(times: Times, numerator: str, denominator: str) -> dict[str, Any]:
    """Median of the ratios of each round, and their quartiles."""
    low, middle, high = np.percentile(ratios(times, numerator, denominator), (25, 50, 75)).tolist()
    return {"median": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)]}


def check_same(what: str, found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Refuses to compare the times of networks whose outputs differ.

    Raises:
        NotMeasured: an output differs by more than rounding does.
    """
    difference = float(np.max([np.abs(a - b).max() for a, b in zip(found, expected, strict=True)]))
    if not difference <= _SAME_OUTPUTS:
        raise NotMeasured(f"{what} differs from the bundle by {difference:.1e}: are the weights those of the bundle?")


def _against_gflops(bundle: Bundle, ratio: dict[str, Any]) -> dict[str, Any]:
    cost = bundle.gflops(bundle.base) / bundle.gflops(bundle.full)
    return {
        "median": round(ratio["median"] / cost, 4),
        "quartiles": [round(value / cost, 4) for value in ratio["quartiles"]],
    }


def _runner(execution: Execution, config: DepthConfig) -> Callable[[], object]:
    return lambda: execution.run(config)


def _monolithic_export(tested: BundleUnderTest, config: DepthConfig) -> bytes:
    model = load_weights(tested.weights).model
    source = tested.bundle.input_spec()
    names = [segment.name for segment in tested.bundle.segments_for(config)]
    module = Monolithic(model, names, source.shape[1:3])
    outputs = tested.bundle.manifest.outputs
    return export_plainly(
        module, torch.zeros(source.shape, dtype=torch.uint8), source.name, [outputs.boxes, outputs.logits]
    )


def _quantize(tested: BundleUnderTest, runtime: str) -> Bundle:
    parser = argparse.ArgumentParser()
    quantize.add_options(parser)
    path = tested.scratch / f"{runtime}-int8.anydepth"
    arguments = [str(tested.bundle.path), str(path), "--images", quantize.AISLE]
    return quantize.quantize(
        parser.parse_args(
            [*arguments, "--count", str(_CALIBRATION_IMAGES), "--for", runtime], quantize.QuantizeOptions()
        )
    )

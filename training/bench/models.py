"""Measures one float32 forward of AnyDepth-DETR and of Hugging Face's RTDetr with the same weights: time and memory."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from anydepth_perception.depth.space import FULL
from training.bench.huggingface import random_rtdetr
from training.data.coco_names import COCO_NAMES
from training.models.detr import AnyDepthDetr
from training.models.detr_convert import from_huggingface
from training.models.folding import fold
from training.models.stage import STATIC

SIZES = ("r18", "r50")
NETWORKS = ("huggingface", "ours", "ours_folded")
IMAGE_SIZE = 640

Forward = Callable[[Tensor], object]


def networks(size: str) -> dict[str, Forward]:
    """The networks to compare: the peer, ours as it is trained (static, no FINE), ours as it is exported (folded)."""
    peer = random_rtdetr(size, seed=0)
    ours = AnyDepthDetr(size, len(COCO_NAMES), fine=None, any_depth=STATIC).eval()
    ours.load_state_dict(from_huggingface(peer.state_dict(), ours).state)
    return {"huggingface": peer, "ours": ours, "ours_folded": fold(ours, FULL)}


def lone_network(size: str, name: str) -> Forward:
    """One of `NETWORKS` with random weights, and nothing beside it."""
    if name == "huggingface":
        return random_rtdetr(size, seed=0)
    ours = AnyDepthDetr(size, len(COCO_NAMES), fine=None, any_depth=STATIC).eval()
    return fold(ours, FULL) if name == "ours_folded" else ours


def peak_growth_mib(forward: Forward, images: Tensor) -> float:
    """MiB by which the resident memory of this process grows at most during one forward; Linux."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what building left behind would otherwise serve the forward unseen
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before = _status_mib("VmRSS")
    with torch.inference_mode():
        forward(images)
    return _status_mib("VmHWM") - before


def _status_mib(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


def memory_in_new_process(size: str, name: str, threads: int) -> float:
    """`peak_growth_mib` of a network that has a process to itself, whose first forward it is."""
    command = [sys.executable, "-m", "training.bench.models", "--threads", str(threads), "--memory", size, name]
    # Freed tensors go back to the system at once: the peak is then what is live, not what the allocator keeps.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(result.stdout.split()[-1])


def interleaved_seconds(forwards: dict[str, Forward], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of each network in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in forwards}
    with torch.inference_mode():
        for round_index in range(rounds + 1):
            for name, forward in forwards.items():
                start = time.perf_counter()
                forward(images)
                if round_index:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.bench.models`; JSON on the last line."""
    parser = argparse.ArgumentParser(prog="training.bench.models", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="forwards of each network (default: 9)")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads (default: 2)")
    parser.add_argument("--memory", nargs=2, metavar=("SIZE", "NETWORK"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.rounds, options.threads) < 1:
        parser.error("--rounds and --threads must be at least 1")
    torch.set_num_threads(options.threads)
    images = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    if options.memory:
        size, name = options.memory
        print(peak_growth_mib(lone_network(size, name), images))
        return 0
    results: dict[str, object] = {"image_size": IMAGE_SIZE, "threads": options.threads, "rounds": options.rounds}
    results |= {"machine": platform.machine(), "torch": torch.__version__}
    print(f"one float32 forward at {IMAGE_SIZE}x{IMAGE_SIZE}, {options.threads} threads, {options.rounds} rounds")
    print("| size | network | time, median | over Hugging Face | memory peak | over Hugging Face |")
    print("|---|---|---|---|---|---|")
    for size in SIZES:
        memory = {name: memory_in_new_process(size, name, options.threads) for name in NETWORKS}
        seconds = interleaved_seconds(networks(size), images, options.rounds)
        for name in NETWORKS:
            median = statistics.median(seconds[name])
            ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["huggingface"], strict=True))
            memory_ratio = memory[name] / memory["huggingface"]
            print(
                f"| {size} | {name} | {1000 * median:.0f} ms | {ratio:.2f} | {memory[name]:.0f} MiB "
                f"| {memory_ratio:.2f} |",
                flush=True,
            )
            results[f"{size}_{name}"] = {
                "seconds": round(median, 4),
                "time_over_huggingface": round(ratio, 3),
                "memory_mib": round(memory[name], 1),
                "memory_over_huggingface": round(memory_ratio, 3),
            }
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

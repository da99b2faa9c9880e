"""Mutated bundles and cache entries, each tried in this process, which is expected to survive; a helper of the tests.

    PYTHONPATH=$PWD:$PWD/test/anydepth_perception python fuzz_cases.py KIND FIRST COUNT FOLDER

tries COUNT seeds from FIRST on, KIND being one of `CASES`, in the empty FOLDER (an absolute path),
and writes one line of JSON before and one after each to FOLDER/results. A crash or a hang ends the process with a
signal, and the last line says at which seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import Mutation, mutate_bytes, mutate_entry, mutate_manifest, mutate_model
from tiny_bundle import make_tiny_bundle, tiny_parts_with_exits

from anydepth_perception.backends import BackendError
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
from anydepth_perception.bundle import Bundle, BundleError, rewrite_bundle, write_bundle
from anydepth_perception.bundle.plain_run import reference_by_onnxruntime
from anydepth_perception.depth.space import DecisionPointError
from anydepth_perception.detection.detector import Detector
from anydepth_perception.execution import Execution, decision_points_of

CASE_S = 120
MEMORY_BYTES = 6 << 30
MAX_MESSAGE = 2000
TOLERANCE = 1e-3
"""What the self-check allows in float32."""

Outputs = dict[str, np.ndarray]


class Workbench:
    """A folder with a good bundle in it, which each case changes and puts back, and a guard over all other files."""

    def __init__(self, folder: Path, *, with_exits: bool = False) -> None:
        self.folder = folder
        self.bundle = folder / "tiny.anydepth"
        self.cache = folder / "cache"
        for name in ("empty", "outside", "tmp"):
            (folder / name).mkdir()
        os.environ.update({"HOME": str(folder / "empty"), "TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": ""})
        os.chdir(folder / "empty")
        bundle = write_bundle(self.bundle, *tiny_parts_with_exits()) if with_exits else make_tiny_bundle(self.bundle)
        image = np.random.default_rng(1).integers(0, 256, bundle.input_spec().shape, np.uint8)
        bundle = rewrite_bundle(bundle, reference=reference_by_onnxruntime(bundle, image))
        # What a path that leads out of the bundle would find is good: reading it would go unnoticed otherwise.
        shutil.copy(self.bundle / "segments" / "stem.onnx", folder / "outside" / "stem.onnx")
        self.image = image
        self.expected = run(bundle, "whole", EngineCache(self.cache), image)
        self.originals = read_tree(self.bundle)
        self.entries = read_tree(self.cache)
        self.surroundings = self._surroundings()

    def restore(self) -> None:
        """Puts the bundle and the cache back."""
        for place, files in ((self.bundle, self.originals), (self.cache, self.entries)):
            if place.is_symlink() or not place.is_dir() or read_tree(place) != files:
                shutil.rmtree(place)
                for name, data in files.items():
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / name).write_bytes(data)

    def check_surroundings(self) -> None:
        """Fails if anything was written beside the cache."""
        assert self._surroundings() == self.surroundings, "a file was written outside of the cache"

    def _surroundings(self) -> dict[str, bytes]:
        return {
            str(place): data
            for place, data in read_tree(self.folder).items()
            if Path(place).parts[0] not in ("cache", "results", self.bundle.name)
        }


def read_tree(folder: Path) -> dict[str, bytes]:
    """Contents of all files by relative path; links and pipes by what they are."""
    tree: dict[str, bytes] = {}
    for place in sorted(folder.rglob("*")):
        name = str(place.relative_to(folder))
        if place.is_symlink():
            tree[name] = b"link to " + os.readlink(place).encode()
        elif place.is_file():
            tree[name] = place.read_bytes()
        elif not place.is_dir():
            tree[name] = b"special"
    return tree


def run(bundle: Bundle, execution: str, cache: EngineCache | None, image: np.ndarray) -> Outputs:
    """Raw outputs at full and base of engines that are built, or taken from `cache`, here."""
    engines = Execution(bundle, OnnxRuntimeBackend(1), decision_points_of(execution, bundle.space), cache=cache)
    outputs: Outputs = {}
    for name, config in (("full", bundle.full), ("base", bundle.base)):
        engines.ensure(config)
        if engines.image.shape != image.shape:
            raise AssertionError(f"served with an image of {engines.image.shape}")
        engines.image[:] = image
        engines.run(config)
        outputs[f"{name} boxes"] = engines.boxes.copy()
        outputs[f"{name} logits"] = engines.logits.copy()
    return outputs


def manifest_case(bench: Workbench, picks: random.Random) -> Mutation:
    data = (bench.bundle / "manifest.json").read_bytes()
    mutation = mutate_manifest(data, picks) if picks.random() < 0.7 else mutate_bytes(data, picks)
    (bench.bundle / "manifest.json").write_bytes(mutation.data)
    return mutation


def segment_case(bench: Workbench, picks: random.Random) -> Mutation:
    names = sorted(path.name for path in (bench.bundle / "segments").iterdir())
    name = picks.choice(names)
    path = bench.bundle / "segments" / name
    other = (bench.bundle / "segments" / picks.choice(names)).read_bytes()
    data = path.read_bytes()
    mutation = mutate_model(data, picks) if picks.random() < 0.5 else mutate_bytes(data, picks, other)
    path.write_bytes(mutation.data)
    what = f"{name}: {mutation.what}"
    if picks.random() < 0.25:
        return Mutation(mutation.data, f"{what}, sums as they were", must_refuse=mutation.data != data)
    manifest = json.loads((bench.bundle / "manifest.json").read_bytes())
    manifest["segments"][name.removesuffix(".onnx")]["sha256"] = hashlib.sha256(mutation.data).hexdigest()
    (bench.bundle / "manifest.json").write_text(json.dumps(manifest))
    return Mutation(mutation.data, f"{what}, signed again", mutation.must_refuse)


def cache_case(bench: Workbench, picks: random.Random) -> Mutation:
    entries = sorted(bench.cache.iterdir())
    return mutate_entry(picks.choice(entries), picks.choice(entries), bench.folder / "outside", picks)


CASES: dict[str, Callable[[Workbench, random.Random], Mutation]] = {
    "manifest": manifest_case,
    "exits": manifest_case,
    "segment": segment_case,
    "cache": cache_case,
}


def try_case(kind: str, seed: int, bench: Workbench) -> dict[str, Any]:
    """Mutates, loads and runs; says whether that was refused and why, or served."""
    picks = random.Random(f"{kind} {seed}")
    bench.restore()
    mutation = CASES[kind](bench, picks)
    execution = "staged" if kind != "cache" and picks.random() < 0.15 else "whole"
    cache = EngineCache(bench.cache) if kind == "cache" else None
    outcome: dict[str, Any] = {"what": mutation.what}
    try:
        bundle = Bundle.load(bench.bundle)
        outputs = run(bundle, execution, cache, bench.image)
        if CASES[kind] is manifest_case:
            Detector(bundle, OnnxRuntimeBackend(1), configs=[bundle.base]).detect(
                np.zeros((48, 64, 3), np.uint8), bundle.base
            )
    except (BundleError, BackendError, DecisionPointError) as error:
        message = str(error)
        assert message.strip() and message.isprintable(), f"refused with {message!r}"
        assert len(message) <= MAX_MESSAGE, f"refused in {len(message)} characters: {message!r}"
        outcome.update(outcome="refused", error=type(error).__name__, message=message)
    else:
        assert not mutation.must_refuse, f"{mutation.what}: was served"
        for name, value in outputs.items():
            difference = np.abs(value - bench.expected[name]).max()
            assert difference <= TOLERANCE, f"{mutation.what}: {name} differ by {difference}"
        outcome.update(outcome="served")
    assert kind != "cache" or outcome["outcome"] == "served", f"{mutation.what}: {outcome['message']}"
    bench.check_surroundings()
    return outcome


def main() -> None:
    """Tries the seeds that the command line names."""
    kind, first, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bench = Workbench(folder, with_exits=kind == "exits")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends a process that hangs in a library, too
    with (folder / "results").open("w", encoding="utf-8") as results:
        for seed in range(first, first + count):
            results.write(json.dumps({"seed": seed}) + "\n")
            results.flush()
            signal.alarm(CASE_S)
            try:
                outcome = try_case(kind, seed, bench)
            except Exception as error:
                outcome = {"outcome": "failed", "message": f"{type(error).__name__}: {str(error)[:1000]}"}
            signal.alarm(0)
            results.write(json.dumps({"seed": seed, **outcome}) + "\n")
            results.flush()


if __name__ == "__main__":
    main()

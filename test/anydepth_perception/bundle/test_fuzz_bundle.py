"""Damaged manifests, segments and cache entries are refused with a reason or served right, and never more than that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

CASES = {"manifest": 500, "exits": 200, "segment": 900, "cache": 400}
"""Cases of each kind in the whole run (`make fuzz`); those of `exits` are manifests of a detector with a decoder."""

SHARE = int(os.environ.get("FUZZ_SHARE", "4"))
"""One in so many of them is tried here: the whole takes about as long as all other tests of the bundle."""

LIMIT_S = 1500
SCRIPT = Path(__file__).with_name("fuzz_cases.py")


def try_cases(kind: str, count: int, folder: Path, first: int = 0) -> list[dict[str, Any]]:
    """Outcomes of all seeds, tried in another process.

    Fails at the first seed that ends the process: by a crash, by SIGALRM after a hang, or for memory.
    """
    command = [sys.executable, str(SCRIPT), kind, str(first), str(count), str(folder)]
    folders = SCRIPT.resolve().parents
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folders[index]) for index in (3, 2, 1))}
    process = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, env=environment, check=False
    )
    results = folder / "results"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if process.returncode:
        ended = f"signal {signal.Signals(-process.returncode).name}" if process.returncode < 0 else "an error"
        seed = lines[-1]["seed"] if lines else "none"
        pytest.fail(f"{kind} ended with {ended} at seed {seed}: {process.stderr[-2000:]}")
    return [line for line in lines if "outcome" in line]


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("kind", CASES)
def test_damage_is_refused_or_served_right(kind: str, tmp_path: Path) -> None:
    count = CASES[kind] // SHARE
    outcomes = try_cases(kind, count, tmp_path)
    failed = [f"{kind} seed {line['seed']}: {line['message']}" for line in outcomes if line["outcome"] == "failed"]
    assert not failed, "\n".join(failed)
    assert len(outcomes) == count
    kinds = Counter(line["outcome"] for line in outcomes)
    print(f"{kind}: {dict(kinds)}, {dict(Counter(line.get('error', 'none') for line in outcomes))}")
    # A damaged entry of the cache costs a build and nothing else. Of damage to the bundle, some has to be found.
    assert kinds["served"] == count if kind == "cache" else kinds["refused"] > 0

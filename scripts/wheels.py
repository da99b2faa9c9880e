"""Fetches pinned wheels into a folder, some at a time, so that an interrupted download is resumed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event

ATTEMPTS = 3
PARALLEL = 3
BATCH = 6

SELECT_FOR_THIS_PYTHON = """
import json, sys
from pip._vendor.packaging.requirements import Requirement
lines = json.load(sys.stdin)
json.dump([l for l in lines if not (m := Requirement(l).marker) or m.evaluate()], sys.stdout)
"""


class FetchError(RuntimeError):
    """A package cannot be had; the message gives pip's own reason."""


def for_this_python(python: Path, lines: list[str]) -> list[str]:
    """Drop the requirement lines whose marker excludes the interpreter."""
    command = [str(python), "-c", SELECT_FOR_THIS_PYTHON]
    done = subprocess.run(command, input=json.dumps(lines), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def is_there(line: str, folder: Path) -> bool:
    """Tell whether the folder holds the wheel of a line like `name==version ; marker`."""
    name, _, version = line.split(";")[0].strip().partition("==")
    # A wheel's name has underscores, and a version may carry a local part: torch-2.13.0+cpu-cp311-...
    prefix = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}"
    return any(path.name.lower().startswith((f"{prefix}-", f"{prefix}+")) for path in folder.glob("*.whl"))


def reason_of(output: str) -> str:
    """Find the line of pip's output that says why it failed."""
    errors = [line.removeprefix("ERROR:").strip() for line in output.splitlines() if line.startswith("ERROR:")]
    if not errors:
        return "pip failed"
    if "WARNING: Retrying (" in output and "No matching distribution" in errors[-1]:
        return "the package index cannot be reached"
    return errors[-1]


def fetch_batch(python: Path, lines: list[str], folder: Path, log: Path, stop: Event) -> None:
    """Fetch some wheels; each appears in the folder whole or not at all.

    Raises:
        FetchError: pip failed each time.
    """
    for attempt in range(ATTEMPTS):
        if attempt and stop.wait(2.0 * attempt):
            break
        with tempfile.TemporaryDirectory(dir=folder, prefix="part-") as part:
            command = [str(python), "-m", "pip", "wheel", "--disable-pip-version-check", "--no-input", "--no-deps"]
            command += ["--progress-bar", "off", "--retries", "5", "--timeout", "60", "--wheel-dir", part, *lines]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            with log.open("a") as output:
                output.write(done.stdout)
            if done.returncode == 0:
                for path in Path(part).glob("*.whl"):
                    path.replace(folder / path.name)
                return
    raise FetchError(reason_of(done.stdout))


def fetch(python: Path, lines: list[str], folder: Path, log: Path) -> None:
    """Fetch the wheels of all lines that the folder does not hold yet.

    Args:
        python: Interpreter whose pip is used and whom the wheels are for.
        lines: Requirement lines that apply to it, each pinned to a version.
        folder: Where the wheels go; made if it is not there.
        log: File that pip's output is appended to.

    Raises:
        FetchError: A package cannot be had. The others are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("part-*"):
        shutil.rmtree(left_over)
    missing = [line for line in lines if not is_there(line, folder)]
    batches = -(-len(missing) // BATCH)
    pool = ThreadPoolExecutor(PARALLEL)
    stop = Event()
    fetched = len(lines) - len(missing)
    try:
        jobs = {}
        for start in range(batches):
            # Strided, so that packages of one kind, large or small, don't end up in one batch.
            batch = missing[start::batches]
            jobs[pool.submit(fetch_batch, python, batch, folder, log, stop)] = len(batch)
        for job in as_completed(jobs):
            job.result()
            fetched += jobs[job]
            if sys.stdout.isatty():
                print(f"\r\033[Ksetup: fetched {fetched} of {len(lines)} packages", end="", flush=True)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)

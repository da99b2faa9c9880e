"""The demo's load: one busy process per CPU, its strength set by its scheduling priority."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType

_MODULE = "anydepth_perception.tools.demo.load"


class BusyProcesses:
    """Processes that take CPU time away from others until the end of the `with` block.

    Their niceness sets how much: a process of niceness 0 takes half of a CPU that another one wants too, one of 5
    about a quarter. They end by themselves with the process that started them, and after `limit_s` in any case.
    """

    def __init__(self, niceness: int, count: int | None = None, limit_s: float = 300.0) -> None:
        """`count` processes, by default one per CPU that this process may use."""
        self._count = count or len(os.sched_getaffinity(0))
        self._command = [sys.executable, "-m", _MODULE, str(niceness), str(limit_s), str(os.getpid())]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> BusyProcesses:
        self._processes = [subprocess.Popen(self._command, stdout=subprocess.PIPE) for _ in range(self._count)]
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()  # says that the import is over and the load begins
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """One busy process."""
    parser = argparse.ArgumentParser(prog="load", description=__doc__)
    parser.add_argument("niceness", type=int)
    parser.add_argument("limit_s", type=float)
    parser.add_argument("parent", type=int)
    options = parser.parse_args(arguments)
    os.nice(options.niceness)
    print("busy", flush=True)
    end = time.monotonic() + options.limit_s
    while time.monotonic() < end and os.getppid() == options.parent:
        for number in range(100_000):
            number * number


if __name__ == "__main__":
    main()

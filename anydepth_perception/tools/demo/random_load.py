"""A load that comes and goes at random: bursts of a few busy processes of different niceness."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import numpy as np

from anydepth_perception.tools.demo.load import BusyProcesses

SHORTEST_S, LONGEST_S = 0.2, 5.0
_NICENESS = (0, 3, 7, 12)
_MOST_PROCESSES = 3


class RandomLoad:
    """Bursts of 0.2 to 5 s, with as long a pause between them, until the end of the `with` block."""

    def __init__(self, seed: int) -> None:
        """`seed` settles the bursts, though not what the machine makes of them."""
        self._rng = np.random.default_rng(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> RandomLoad:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.ExitStack() as stack:
                for _ in range(int(self._rng.integers(1, _MOST_PROCESSES + 1))):
                    stack.enter_context(BusyProcesses(int(self._rng.choice(_NICENESS)), 1, 2 * LONGEST_S))
                self._wait()
            self._wait()

    def _wait(self) -> None:
        self._ended.wait(float(np.exp(self._rng.uniform(np.log(SHORTEST_S), np.log(LONGEST_S)))))

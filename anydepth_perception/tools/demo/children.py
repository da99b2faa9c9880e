"""The demo's two ROS processes: started with a log each, watched, and ended with SIGINT."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from anydepth_perception.tools.processes import end_process


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why, with the log of the process that failed."""


class Child:
    """A module of this package as a process; its output goes to a log file."""

    def __init__(self, module: str, arguments: list[str], log: Path) -> None:
        self.name = module.rpartition(".")[2]
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=file, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def check(self) -> None:
        """Raises `DemoError` with the end of the log when the process is gone."""
        code = self._process.poll()
        if code is not None:
            raise DemoError(f"the {self.name} ended with code {code}; the end of {self._log}:\n{self.log_end()}")

    def log_end(self, lines: int = 12) -> str:
        """The last lines of the log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def end(self) -> None:
        """Ends the process: SIGINT, and SIGKILL where that does not help within 5 s."""
        end_process(self._process)

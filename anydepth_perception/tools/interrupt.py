"""How a command-line tool ends when it is interrupted: one word and an exit code, no traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

INTERRUPTED = 130
"""Exit code of a command that SIGINT ended, as shells have it."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns the KeyboardInterrupt of SIGINT into SystemExit with the code `INTERRUPTED`."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def end_quietly_until_running(code: int = 0) -> None:
    """Lets SIGINT and SIGTERM end the process at once with `code`, while libraries are imported and nothing is open."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(code))

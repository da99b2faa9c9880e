"""How a command-line tool ends when it is interrupted: one word and an exit code, no traceback."""

from __future__ import annotations

import contextlib
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

"""Small files of the kernel, read so that an absent, broken or stuck one is an empty text and never an error."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NUMBER = re.compile(r"-?[0-9]{1,15}")
_NUMBER_BYTES = 64


def read_text(path: Path | str, max_bytes: int = 4096) -> str:
    """The text of a file without the blanks at its ends; empty where there is none that can be read.

    At most `max_bytes` are read. A sensor that is off answers EAGAIN, as the thermal zones `cv0` to `cv2` of an Orin
    Nano do (prometheus/node_exporter#3071). Python's text files make a TypeError of that, so it is read as plain bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        return _read_all(descriptor, max_bytes).decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def read_number(path: Path | str, low: int, high: int) -> int | None:
    """The whole number in a file; None where there is none that can be read, or none in [low, high]."""
    text = read_text(path, _NUMBER_BYTES)
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if low <= number <= high else None


def _read_all(descriptor: int, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    left = max_bytes
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)

"""What all command lines of the tools share: numbers and sizes with what is accepted, and the end with a reason."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import NoReturn

_MAX_SIDE = 32767


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """A type for argparse: whole numbers of at least `minimum`, and of at most `maximum` where it is given."""
    accepted = f"of at least {minimum}" if maximum is None else f"in [{minimum}, {maximum}]"

    def parse(text: str) -> int:
        value = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {accepted}")
        return value

    return parse


def number(minimum: float, maximum: float, *, above: bool = False) -> Callable[[str], float]:
    """A type for argparse: numbers from `minimum`, or above it, to `maximum`."""
    accepted = f"a number in {'(' if above else '['}{minimum:g}, {maximum:g}]"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {accepted}") from None
        if not minimum <= value <= maximum or (above and value == minimum):
            raise argparse.ArgumentTypeError(f"{text} is not {accepted}")
        return value

    return parse


def image_size(text: str) -> tuple[int, int]:
    """A type for argparse: width and height in pixels, as 640x480."""
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None or not all(1 <= int(side) <= _MAX_SIDE for side in match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 640x480, of at most {_MAX_SIDE} pixels a side")
    return int(match[1]), int(match[2])


def fail(error: Exception | str) -> NoReturn:
    """Ends the tool with the reason in one line."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1)

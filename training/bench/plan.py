"""The plan of the benchmark: its parts in turn within the time that was given, and what had to be left out."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SMALLEST_SHARE = 0.25
"""Of its measuring time: with less, a part's medians rest on too few rounds, and it is left out instead."""


class NotMeasured(Exception):
    """A part that cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Part:
    """One part of the benchmark.

    Attributes:
        name: its key in the results.
        title: for people.
        setup_s: seconds that exporting, compiling and the like take on two cores.
        measure_s: seconds of measuring, of which it may be given less.
        measure: returns its figures, given the seconds to measure for.
    """

    name: str
    title: str
    setup_s: float
    measure_s: float
    measure: Callable[[float], dict[str, Any]]


@dataclass
class Outcome:
    """What the parts put out: figures (None where there are none) and reasons by name; `failed` are the faulty ones."""

    figures: dict[str, dict[str, Any] | None]
    left_out: dict[str, str]
    failed: list[str]


def run_parts(parts: Sequence[Part], seconds: float, clock: Callable[[], float] = time.perf_counter) -> Outcome:
    """Runs the parts in order, within about `seconds`.

    Before each part the time left is dealt out anew: a part that no longer fits is left out, and all others are
    given the same share of their measuring time. How much longer than planned the parts before took to set up is
    expected of the others too. A part that fails takes no other with it.
    """
    end = clock() + seconds
    outcome = Outcome({}, {}, [])
    planned = spent = 0.0
    for index, part in enumerate(parts):
        pace = max(1.0, spent / planned) if planned else 1.0
        left = end - clock()
        granted = _granted(parts[index:], left, pace)
        if granted is None:
            needed = part.setup_s * pace + part.measure_s * SMALLEST_SHARE
            _leave_out(outcome, part, f"it needs about {needed:.0f} s, {max(0.0, left):.0f} s were left")
            continue
        print(f"{seconds - left:4.0f} s: {part.title}, measured for {granted:.0f} s", file=sys.stderr, flush=True)
        started = clock()
        try:
            outcome.figures[part.name] = part.measure(granted)
        except NotMeasured as reason:
            _leave_out(outcome, part, str(reason))
        except Exception as error:  # whatever is wrong with one part, the figures of the others count
            traceback.print_exc()
            outcome.failed.append(part.name)
            _leave_out(outcome, part, f"{type(error).__name__}: {error}")
        planned += part.setup_s
        spent += max(0.0, clock() - started - granted)
    return outcome


def _granted(parts: Sequence[Part], left: float, pace: float) -> float | None:
    """Seconds of measuring for the first of `parts`, of which those that fit in `left` run; None where it does not."""
    setup = least = measure = 0.0
    for part in parts:
        needed = part.setup_s * pace + part.measure_s * SMALLEST_SHARE
        if least + needed <= left:
            least += needed
            setup += part.setup_s * pace
            measure += part.measure_s
        elif part is parts[0]:
            return None
    share = min(1.0, (left - setup) / measure) if measure else 0.0
    return parts[0].measure_s * share


def _leave_out(outcome: Outcome, part: Part, reason: str) -> None:
    print(f"left out: {part.title}: {reason}", file=sys.stderr, flush=True)
    outcome.figures[part.name] = None
    outcome.left_out[part.name] = reason

"""What the soak calls a fault: counters that do not add up, growth, slow services, tracebacks."""

from __future__ import annotations

import pytest
from measures import Findings, Footprint

COUNTS = {"received": 10, "served": 5, "replaced": 2, "dropped": 1, "bad": 2, "failed": 0, "lost": 3}


def counted(**changes: int) -> dict[str, str]:
    return {"fps": "3.0", **{f"frames_{fate}": str(number) for fate, number in {**COUNTS, **changes}.items()}}


def test_frames_that_all_have_one_fate_are_in_order_and_are_summed_up() -> None:
    findings = Findings()
    findings.check_counts("left", counted(), sent=13)
    findings.check_counts("right", counted(), sent=10)
    assert findings.faults == [] and findings.done["frames_served"] == 10


@pytest.mark.parametrize(
    ("values", "sent", "fault"),
    [
        (counted(served=4), 13, "left: 10 received, 9 accounted for"),
        (counted(replaced=3), 13, "left: 10 received, 11 accounted for"),
        (counted(), 9, "left: 10 received of 9 sent"),
        (counted(served=4, failed=1), 13, "left: 1 frames failed"),
    ],
)
def test_frame_without_a_fate_or_with_two_is_a_fault(values: dict[str, str], sent: int, fault: str) -> None:
    findings = Findings()
    findings.check_counts("left", values, sent)
    assert len(findings.faults) == 1 and findings.faults[0].startswith(fault)


def footprints(*sizes: float, threads: int = 10, last_threads: int = 10) -> list[Footprint]:
    return [Footprint(size, threads, 20) for size in sizes[:-1]] + [Footprint(sizes[-1], last_threads, 20)]


@pytest.mark.parametrize(
    ("seen", "faults"),
    [
        (footprints(100, 150, 200, 205, 210, 205, 210, 208), 0),
        (footprints(100, 150, 200, 210, 220, 230, 240, 250), 1),
        (footprints(100, 150, 200, 200, 200, 200, 200, 200, last_threads=14), 1),
        (footprints(100, 900), 0),  # too short to tell
    ],
)
def test_growth_behind_the_warm_up_is_a_fault(seen: list[Footprint], faults: int) -> None:
    assert len(Findings(footprints=seen).conclude()) == faults


@pytest.mark.parametrize(("set_ms", "faults"), [([5.0] * 99 + [900.0], 0), ([5.0] * 90 + [60.0] * 10, 1)])
def test_slow_parameters_are_a_fault(set_ms: list[float], faults: int) -> None:
    assert len(Findings(set_ms=set_ms).conclude()) == faults


def test_tracebacks_and_endless_lines_in_the_log_are_faults() -> None:
    findings = Findings()
    findings.check_log("all is well\nTraceback (most recent call last):\n" + "x" * 6000)
    assert findings.faults == ["log: Traceback (most recent call last):", "log: a line of 6000 characters"]

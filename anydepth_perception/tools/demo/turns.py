"""Policies of depth that take turns on one machine, and which frames fell into whose turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from anydepth_perception.tools.demo.recorder import ServedFrame

POLICIES = ("auto", "full", "base")
"""Values of the node's parameter `depth`."""

SETTLE_S = 0.15
"""After a change of policy: frames that may have waited for the one before count for none."""

CLOSE_S = 0.1
"""Before the next change: a frame that is stamped so late may be served by the next policy."""


@dataclass(frozen=True)
class Turn:
    """A stretch of time whose frames count for a policy: by the camera's stamps, from `start_ns` to before `end_ns`."""

    policy: str
    start_ns: int
    end_ns: int

    @classmethod
    def between(cls, policy: str, changed_ns: int, next_change_ns: int) -> Turn:
        """The turn of a policy that the node took over at one time, and another one after the other."""
        return cls(policy, changed_ns + int(SETTLE_S * 1e9), next_change_ns - int(CLOSE_S * 1e9))


class TurnFrame(NamedTuple):
    """A published frame of a policy's turn; `served` is None where the node left it out."""

    policy: str
    stamp_ns: int
    served: ServedFrame | None

    @property
    def on_time(self) -> bool:
        """Whether detections were published before the deadline."""
        return self.served is not None and not self.served.missed


def policy_at(turns: Sequence[Turn], stamp_ns: int) -> str | None:
    """Whose turn it was; None between turns."""
    return next((turn.policy for turn in turns if turn.start_ns <= stamp_ns < turn.end_ns), None)


def turn_frames(
    turns: Sequence[Turn], published: Iterable[int], served: Iterable[ServedFrame]
) -> Iterator[TurnFrame]:
    """The published frames (stamps, nanoseconds) that fell into a turn, in the order of `published`."""
    reports = {frame.stamp_ns: frame for frame in served}
    for stamp_ns in published:
        policy = policy_at(turns, stamp_ns)
        if policy is not None:
            yield TurnFrame(policy, stamp_ns, reports.get(stamp_ns))

"""Which frame is served next, and how much time it may take of what all the cameras have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from anydepth_perception.serving.arrivals import Arrivals

Message = TypeVar("Message")

_EXPECTED = 2
"""Frames of each camera that are foreseen when time is shared out."""

_COUNTED_PERIODS = 2.0
"""Age that scheduling believes of a camera without a deadline, in periods of the camera."""


@dataclass(frozen=True)
class PendingFrame(Generic[Message]):
    """A frame that arrived and has not been looked at.

    Attributes:
        camera: index of the camera it came from.
        message: what the camera sent, not decoded yet.
        arrival_s: time of arrival on the steady clock, seconds.
        age_s: seconds from the camera's stamp to the arrival, never negative.
        deadline_s: when its detections are due, on the steady clock, seconds; infinite where nothing is due.
    """

    camera: int
    message: Message
    arrival_s: float
    age_s: float
    deadline_s: float = math.inf

    @property
    def capture_s(self) -> float:
        """When the camera took it, on the steady clock, seconds."""
        return self.arrival_s - self.age_s


@dataclass(frozen=True)
class ExpectedFrame:
    """A frame that a camera is going to send: when it arrives and when it is due, on the steady clock, seconds."""

    arrival_s: float
    deadline_s: float


@dataclass(frozen=True)
class CountedAge:
    """Stamps that are older than scheduling believes: their usual age, and the most that counts, seconds."""

    usual_s: float
    most_s: float


@dataclass(frozen=True)
class Budget:
    """The time that a frame may take, milliseconds.

    `own_ms` is what is left until its own deadline, `shared_ms` its share of what is left until the deadlines of other
    frames. None where nothing is due.
    """

    own_ms: float | None = None
    shared_ms: float | None = None

    @property
    def ms(self) -> float | None:
        """The smaller of the two; None where neither is there."""
        return min((budget for budget in (self.own_ms, self.shared_ms) if budget is not None), default=None)

    @property
    def is_shared(self) -> bool:
        """Whether other frames leave it less than its own deadline does."""
        return self.shared_ms is not None and (self.own_ms is None or self.shared_ms < self.own_ms)


class NewestFrames(Generic[Message]):
    """One slot per camera in which a newer frame replaces the one that waits. Not thread-safe, and without a clock.

    While the worker keeps up, the frame that is due first is taken (non-preemptive EDF). Once a frame had to give way
    to a newer one of its camera, the worker doesn't keep up, and EDF would favour short deadlines for good; so then,
    until that camera has had its turn, the camera whose last turn is longest ago is taken. Hence, of n cameras, at most
    n - 1 frames of others are taken between a frame that gave way and the next turn of its camera, and cameras that
    send more than their share get equal shares, whatever their deadlines, rates and clocks.

    A stamp is believed only as far as scheduling needs it: at most one deadline of age counts, for a frame older than
    that is late already and nothing is gained by taking it before one that arrived earlier; without a deadline, at most
    `_COUNTED_PERIODS` periods count. So a camera whose clock is behind does not push itself before the others.
    """

    def __init__(self, cameras: int) -> None:
        self._streams: list[_Stream[Message]] = [_Stream() for _ in range(cameras)]
        self._turns = 0

    def __bool__(self) -> bool:
        return self.has_waiting_frame

    @property
    def has_waiting_frame(self) -> bool:
        """Whether a frame of any camera waits."""
        return any(stream.waiting is not None for stream in self._streams)

    def put(self, frame: PendingFrame[Message]) -> bool:
        """Stores a frame; True when it replaced one that waited."""
        stream = self._streams[frame.camera]
        replaced = stream.waiting is not None
        stream.gave_way |= replaced
        stream.allowed_s = frame.deadline_s - frame.capture_s
        stream.arrivals.add(frame.arrival_s, frame.age_s)
        stream.waiting = frame
        return replaced

    def take(self) -> PendingFrame[Message] | None:
        """The frame whose turn it is, None when none waits; of frames that are due together, the oldest capture."""
        waiting = [stream for stream in self._streams if stream.waiting is not None]
        if not waiting:
            return None
        in_turn = any(stream.gave_way for stream in waiting)
        stream = min(waiting, key=_Stream.turn_order if in_turn else _Stream.order)
        self._turns += 1
        frame = stream.waiting
        stream.waiting, stream.gave_way, stream.last_turn = None, False, self._turns
        return frame

    def shared_budget_ms(self, now_s: float, is_hopeless: Callable[[float], bool]) -> float | None:
        """What a frame that is begun now may take so that the frames after it can be in time too, milliseconds.

        The least of (d_k - now) / (k + 1), where d_1, d_2, ... are, in the order of service, the deadlines of the
        frames that wait and of the next `_EXPECTED` of each camera, that of the frame included: the frame and the k
        after it can take as much each. A camera without a deadline bounds nothing.

        A frame that can't be in time anyhow bounds nothing either: one whose share, or whose time from its arrival to
        its deadline, is hopeless. If it waits, it is served late and takes its turn before those behind it; if it is
        only expected, it takes none, for in such a load a newer one will have replaced it. So an overload leaves a
        frame the time that none of the others can use.

        Args:
            now_s: on the steady clock, seconds.
            is_hopeless: whether no depth can be done in so many milliseconds.

        Returns:
            The bound, None where no frame bounds. It may be more than the own deadline of the frame leaves.
        """
        upcoming = [frame for stream in self._streams for frame in stream.upcoming(now_s)]
        bound_ms: float | None = None
        turns = 1
        for frame in sorted(upcoming):
            share_ms = (frame.deadline_s - now_s) / (turns + 1) * 1e3
            at_best_ms = (frame.deadline_s - max(now_s, frame.arrival_s)) * 1e3
            can_be_met = not is_hopeless(share_ms) and not is_hopeless(at_best_ms)
            if can_be_met:
                bound_ms = share_ms if bound_ms is None else min(bound_ms, share_ms)
            turns += can_be_met or frame.waits
        return bound_ms

    def next_frame(self, camera: int, now_s: float) -> ExpectedFrame | None:
        """The frame that a camera is expected to send next, None where none is."""
        stream = self._streams[camera]
        arrivals_s = stream.arrivals.expected(now_s, 1)
        return ExpectedFrame(arrivals_s[0], arrivals_s[0] + stream.left_s) if arrivals_s else None

    def counted_age(self, camera: int) -> CountedAge | None:
        """How old a camera's stamps usually are and how much of it counts; None where all of it does."""
        stream = self._streams[camera]
        usual_s, most_s = stream.arrivals.usual_age_s, stream.most_age_s
        return CountedAge(usual_s, most_s) if usual_s > most_s else None


class _Upcoming(NamedTuple):
    """A frame that claims time: its place in the order, its true deadline and its arrival, steady clock, seconds."""

    order_s: float
    deadline_s: float
    arrival_s: float
    waits: bool


@dataclass
class _Stream(Generic[Message]):
    """One camera: the frame that waits, whether one gave way since the last turn, and what is expected of it.

    `allowed_s` is from the capture of its newest frame to the deadline; `last_turn` counts turns of all cameras.
    """

    waiting: PendingFrame[Message] | None = None
    gave_way: bool = False
    last_turn: int = 0
    allowed_s: float = math.inf
    arrivals: Arrivals = field(default_factory=Arrivals)

    @property
    def most_age_s(self) -> float:
        """The age that scheduling believes, seconds: one deadline, without one some periods once they are known."""
        if math.isfinite(self.allowed_s):
            return self.allowed_s
        period_s = self.arrivals.period_s
        return math.inf if period_s is None else _COUNTED_PERIODS * period_s

    @property
    def left_s(self) -> float:
        """What usually is left until the deadline when a frame arrives, seconds; negative where it is late by then."""
        return self.allowed_s - self.arrivals.usual_age_s

    def order(self) -> tuple[float, float]:
        """When the waiting frame is due and was captured as far as its stamp is believed, seconds."""
        frame = self.waiting
        assert frame is not None
        capture_s = frame.arrival_s - min(frame.age_s, self.most_age_s)
        return capture_s + self.allowed_s, capture_s

    def turn_order(self) -> tuple[float, bool, float, float]:
        """The longest without a turn first; of those that never had one, one that gave way."""
        return self.last_turn, not self.gave_way, *self.order()

    def upcoming(self, now_s: float) -> list[_Upcoming]:
        """The frames that are due at some time: the one that waits, and those expected."""
        if not math.isfinite(self.allowed_s):
            return []
        left_s = self.left_s
        frames = [
            _Upcoming(arrival_s + max(left_s, 0.0), arrival_s + left_s, arrival_s, waits=False)
            for arrival_s in self.arrivals.expected(now_s, _EXPECTED)
        ]
        if self.waiting is not None:
            deadline_s = self.waiting.deadline_s
            frames.append(_Upcoming(self.order()[0], deadline_s, self.waiting.arrival_s, waits=True))
        return frames

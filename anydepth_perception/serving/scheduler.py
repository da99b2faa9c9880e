"""Which frame is served next: a newest-frame slot per camera, the earliest deadline first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

Message = TypeVar("Message")


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


class NewestFrames(Generic[Message]):
    """One slot per camera in which a newer frame replaces the one that waits. Not thread-safe by itself."""

    def __init__(self, cameras: int) -> None:
        self._slots: list[PendingFrame[Message] | None] = [None] * cameras
        self._unserved_since = [0.0] * cameras

    def __bool__(self) -> bool:
        return any(slot is not None for slot in self._slots)

    def put(self, frame: PendingFrame[Message]) -> bool:
        """Stores a frame; True when it replaced one that waited."""
        replaced = self._slots[frame.camera] is not None
        if not replaced:
            self._unserved_since[frame.camera] = frame.capture_s
        self._slots[frame.camera] = frame
        return replaced

    def take(self) -> PendingFrame[Message] | None:
        """The frame that is due first, None when none waits; of frames that are due together, the oldest capture.

        A replacement inherits the age of the frame it replaced, and is due as much earlier; otherwise the camera whose
        frames come a little later in each period would never be served when the worker is slower than the cameras.
        """
        waiting = [frame for frame in self._slots if frame is not None]
        if not waiting:
            return None
        frame = min(waiting, key=self._order)
        self._slots[frame.camera] = None
        return frame

    def _order(self, frame: PendingFrame[Message]) -> tuple[float, float]:
        since_s = self._unserved_since[frame.camera]
        return since_s + (frame.deadline_s - frame.capture_s), since_s

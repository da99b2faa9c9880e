"""Which frame is served next: a newest-frame slot per camera, the oldest capture first."""

from __future__ import annotations

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
    """

    camera: int
    message: Message
    arrival_s: float
    age_s: float

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
        """The frame to serve next, None when none waits.

        All cameras share one deadline, so earliest deadline first is oldest capture first. A replacement inherits
        the age of the frame it replaced; otherwise the camera whose frames come a little later in each period would
        never be served when the worker is slower than the cameras.
        """
        waiting = [camera for camera, slot in enumerate(self._slots) if slot is not None]
        if not waiting:
            return None
        camera = min(waiting, key=lambda index: self._unserved_since[index])
        frame, self._slots[camera] = self._slots[camera], None
        return frame

"""What happened to the frames: counts since activation, and rates over the last seconds."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from anydepth_perception.serving.scheduler import Budget

_WINDOW_S = 5.0


@dataclass(frozen=True)
class FrameReport:
    """How one frame was served; times in milliseconds.

    `latency_ms` runs from the camera's stamp to the published detections; `queue_ms` is the part before the worker
    took the frame: transport and waiting. `deadline_ms` is that of the camera, 0 means that there was none. `budget` is
    what the controller chose by.
    """

    depth: str
    detections: int
    latency_ms: float
    queue_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    deadline_ms: float
    budget: Budget = field(default_factory=Budget)

    @property
    def missed(self) -> bool:
        """Whether the frame was published after its deadline."""
        return 0.0 < self.deadline_ms < self.latency_ms


@dataclass
class FrameCounts:
    """Frames since activation.

    `shared` had less time than their own deadline left, for the sake of other frames; `lost` never arrived; `replaced`
    gave way to a newer one; `bad` could not be decoded; `dropped` were late beyond rescue; `failed` met an error of the
    engine; `unstamped` had no usable stamp.
    """

    received: int = 0
    served: int = 0
    missed: int = 0
    shared: int = 0
    replaced: int = 0
    dropped: int = 0
    bad: int = 0
    failed: int = 0
    lost: int = 0
    unstamped: int = 0


@dataclass(frozen=True)
class FrameSummary:
    """A snapshot: the counts, and the rates of the last seconds.

    Latency percentiles are in milliseconds, None without frames; `depth` is that of the newest frame.
    """

    counts: FrameCounts
    frames_per_s: float
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    depth: str | None


@dataclass
class FrameStatistics:
    """Counts and recent latencies of one camera; thread-safe."""

    _counts: FrameCounts = field(default_factory=FrameCounts)
    _recent: deque[tuple[float, float]] = field(default_factory=deque)
    _first_s: float | None = None
    _depth: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, by: int = 1) -> None:
        """Adds to one of the counts of `FrameCounts`."""
        with self._lock:
            setattr(self._counts, name, getattr(self._counts, name) + by)

    def served(self, report: FrameReport, now_s: float) -> None:
        """Adds a frame whose detections were published at `now_s` of the steady clock."""
        with self._lock:
            self._counts.served += 1
            self._counts.missed += report.missed
            self._counts.shared += report.budget.is_shared
            self._depth = report.depth
            self._first_s = now_s if self._first_s is None else self._first_s
            self._recent.append((now_s, report.latency_ms))
            self._forget(now_s)

    def summary(self, now_s: float) -> FrameSummary:
        """The state at `now_s` of the steady clock."""
        return summarise([self], now_s)

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] < now_s - _WINDOW_S:
            self._recent.popleft()


def summarise(cameras: Iterable[FrameStatistics], now_s: float) -> FrameSummary:
    """The state of several cameras together, at `now_s` of the steady clock."""
    counts = FrameCounts()
    newest_s, depth = -math.inf, None
    latencies_ms: list[float] = []
    frames_per_s = 0.0
    for camera in cameras:
        with camera._lock:
            camera._forget(now_s)
            for name, value in vars(camera._counts).items():
                setattr(counts, name, getattr(counts, name) + value)
            latencies_ms += [latency_ms for _, latency_ms in camera._recent]
            if camera._recent and camera._first_s is not None:
                if camera._recent[-1][0] > newest_s:
                    newest_s, depth = camera._recent[-1][0], camera._depth
                frames_per_s += len(camera._recent) / min(_WINDOW_S, max(1.0, now_s - camera._first_s))
    p50, p95 = (float(value) for value in np.percentile(latencies_ms, (50, 95))) if latencies_ms else (None, None)
    return FrameSummary(counts, frames_per_s, p50, p95, depth)

"""The one thread that owns the inference engine and serves the frames that wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from anydepth_perception.serving.scheduler import CountedAge, ExpectedFrame, Message, NewestFrames, PendingFrame

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


class Worker(Generic[Message]):
    """The one thread that owns the inference engine: it builds the engine and serves the frames.

    The thread is a daemon: a process that has to end does not wait for an engine that hangs.
    """

    def __init__(self, name: str = "detector-worker") -> None:
        self._changed = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._frames: NewestFrames[Message] = NewestFrames(0)
        self._serve: Callable[[PendingFrame[Message]], None] | None = None
        self._serving = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(
        self, task: Callable[[], Result], while_waiting: Callable[[], None] = lambda: None, interval_s: float = 0.1
    ) -> Result:
        """Runs `task` in the thread and returns what it returns, or raises what it raises.

        `while_waiting` is called about every `interval_s` seconds in the calling thread; what it raises ends the wait
        and goes to the caller, while the task runs on.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the worker is closed")
            self._tasks.append(_Task(lambda: _run_into(future, task), future.cancel))
            self._changed.notify_all()
        while not wait([future], timeout=interval_s).done:
            while_waiting()
        return future.result()

    def start(self, cameras: int, serve: Callable[[PendingFrame[Message]], None]) -> None:
        """From now on frames are taken and given to `serve`, in the thread."""
        with self._changed:
            self._frames = NewestFrames(cameras)
            self._serve = serve

    def put(self, frame: PendingFrame[Message]) -> bool:
        """Hands a frame over without waiting; True when it replaced one that waited. Ignored when not started."""
        with self._changed:
            if self._serve is None:
                return False
            replaced = self._frames.put(frame)
            self._changed.notify_all()
            return replaced

    @property
    def has_waiting_frame(self) -> bool:
        """Whether a frame waits while another is being served."""
        with self._changed:
            return self._frames.has_waiting_frame

    def shared_budget_ms(self, now_s: float, is_hopeless: Callable[[float], bool]) -> float | None:
        """As `NewestFrames.shared_budget_ms`."""
        with self._changed:
            return self._frames.shared_budget_ms(now_s, is_hopeless)

    def next_frame(self, camera: int, now_s: float) -> ExpectedFrame | None:
        """As `NewestFrames.next_frame`; None when stopped."""
        with self._changed:
            return self._frames.next_frame(camera, now_s) if self._serve is not None else None

    def counted_age(self, camera: int) -> CountedAge | None:
        """As `NewestFrames.counted_age`; None when stopped."""
        with self._changed:
            return self._frames.counted_age(camera) if self._serve is not None else None

    def stop(self, timeout_s: float) -> bool:
        """Serves no more frames; waits for the one being served. False when it did not end in time."""
        with self._changed:
            self._serve = None
            self._frames = NewestFrames(0)
            return self._changed.wait_for(lambda: not self._serving, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Ends the thread after what it is doing. False when it did not end in time."""
        self.stop(0.0)
        with self._changed:
            self._closed = True
            for task in self._tasks:
                task.cancel()
            self._tasks.clear()
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._tasks) or bool(self._frames))
                if self._closed:
                    return
                task = self._tasks.popleft() if self._tasks else None
                frame = self._frames.take() if task is None else None
                serve, self._serving = self._serve, frame is not None
            if task is not None:
                task.run()
            elif frame is not None and serve is not None:
                try:
                    serve(frame)
                except Exception:
                    # `serve` reports its own failures; one that escapes must not end the thread.
                    _LOG.exception("serving a frame failed")
            with self._changed:
                self._serving = False
                self._changed.notify_all()


@dataclass(frozen=True)
class _Task:
    """Work for the thread; `cancel` lets the caller who waits for it go."""

    run: Callable[[], None]
    cancel: Callable[[], bool]


def _run_into(future: Future[Result], task: Callable[[], Result]) -> None:
    try:
        future.set_result(task())
    except BaseException as error:
        future.set_exception(error)


def steady_s() -> float:
    """The steady clock that arrival and publication are measured with, seconds."""
    return time.monotonic()

"""The newest-frame slots and the worker thread."""

from __future__ import annotations

import math
import threading

import pytest

from anydepth_perception.serving.scheduler import NewestFrames, PendingFrame
from anydepth_perception.serving.worker import Worker

BOUND_S = 20.0  # how long a test waits for what must happen; generous, for loaded machines


def frame(
    camera: int, message: str, arrival_s: float = 0.0, age_s: float = 0.0, deadline_s: float = math.inf
) -> PendingFrame[str]:
    return PendingFrame(camera, message, arrival_s, age_s, deadline_s)


def test_newer_frame_replaces_the_waiting_one_of_its_camera():
    frames = NewestFrames(2)
    assert frames.put(frame(0, "old")) is False
    assert frames.put(frame(1, "other")) is False
    assert frames.put(frame(0, "new")) is True
    assert {frames.take().message, frames.take().message} == {"new", "other"}
    assert frames.take() is None and not frames


def test_oldest_capture_is_taken_first():
    frames = NewestFrames(2)
    frames.put(frame(0, "arrived first", arrival_s=10.0, age_s=0.001))
    frames.put(frame(1, "captured first", arrival_s=10.1, age_s=0.5))
    assert frames.take().message == "captured first"


def test_earliest_deadline_is_taken_before_an_older_capture():
    frames = NewestFrames(3)
    frames.put(frame(0, "nothing is due", arrival_s=8.0))
    frames.put(frame(1, "older", arrival_s=9.0, deadline_s=10.5))
    frames.put(frame(2, "due first", arrival_s=10.0, deadline_s=10.1))
    assert [frames.take().message for _ in range(3)] == ["due first", "older", "nothing is due"]


def test_camera_whose_frame_gave_way_has_its_turn_before_one_that_is_due_earlier():
    frames = NewestFrames(2)
    frames.put(frame(0, "replaced", arrival_s=10.0, deadline_s=10.5))
    frames.put(frame(1, "between", arrival_s=10.1, deadline_s=10.6))
    frames.put(frame(0, "newer", arrival_s=10.2, deadline_s=10.7))
    assert [frames.take().message, frames.take().message] == ["newer", "between"]


@pytest.mark.parametrize("deadline_s", [0.05, math.inf])
def test_camera_a_little_later_in_each_period_is_served_as_often(deadline_s):
    # Both give two frames while one is served: by the age of the waiting frame alone, camera 1 never has a turn.
    frames = NewestFrames(2)
    served = [0, 0]
    for period in range(0, 100, 2):
        for step in (period, period + 1):
            frames.put(frame(0, "a", arrival_s=step, deadline_s=step + deadline_s))
            frames.put(frame(1, "b", arrival_s=step + 0.01, deadline_s=step + 0.01 + deadline_s))
        served[frames.take().camera] += 1
    assert served == [25, 25]


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    assert worker.close(BOUND_S)


def test_call_runs_in_the_worker_thread_and_returns_the_result(worker):
    assert worker.call(lambda: threading.current_thread().name) == "detector-worker"


def test_call_raises_what_the_task_raises(worker):
    def task():
        raise FileNotFoundError("no bundle")

    with pytest.raises(FileNotFoundError, match="no bundle"):
        worker.call(task)
    assert worker.call(lambda: 1) == 1


def test_caller_can_give_up_waiting_for_a_task_that_hangs(worker):
    entered, release = threading.Event(), threading.Event()

    def hang():
        entered.set()
        release.wait(BOUND_S)

    def give_up():
        assert entered.wait(BOUND_S)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.call(hang, while_waiting=give_up, interval_s=0.01)
    assert worker.close(0.01) is False
    release.set()


def test_frames_are_served_in_the_worker_thread_newest_first(worker):
    entered, release, done = threading.Event(), threading.Event(), threading.Event()
    served = []

    def serve(pending):
        served.append((pending.message, threading.current_thread().name))
        entered.set()
        assert release.wait(BOUND_S)
        if pending.message == "third":
            done.set()

    worker.start(1, serve)
    assert worker.put(frame(0, "first")) is False
    assert entered.wait(BOUND_S)
    assert worker.put(frame(0, "second")) is False
    assert worker.has_waiting_frame
    assert worker.put(frame(0, "third")) is True
    release.set()
    assert done.wait(BOUND_S)
    assert served == [("first", "detector-worker"), ("third", "detector-worker")]


def test_worker_knows_of_the_other_frames_while_it_serves_one_and_of_none_when_stopped(worker):
    entered, release = threading.Event(), threading.Event()

    def serve(pending):
        entered.set()
        assert release.wait(BOUND_S)

    worker.start(2, serve)
    worker.put(frame(0, "served", age_s=9.0, deadline_s=-8.0))
    assert entered.wait(BOUND_S)
    for number in range(1, 5):
        worker.put(frame(0, "late", arrival_s=number, age_s=9.0, deadline_s=number - 8.0))
    worker.put(frame(1, "waiting", arrival_s=4.0, deadline_s=4.5))
    assert worker.shared_budget_ms(4.0, lambda budget_ms: budget_ms < 100.0) == pytest.approx(500.0 / 3)
    assert worker.next_frame(0, 4.0).arrival_s == pytest.approx(5.0)
    assert worker.counted_age(0).most_s == pytest.approx(1.0)
    release.set()
    assert worker.stop(BOUND_S)
    assert worker.shared_budget_ms(4.0, lambda budget_ms: False) is None
    assert worker.next_frame(0, 4.0) is None and worker.counted_age(0) is None


def test_frame_that_raises_does_not_end_the_worker(worker):
    done = threading.Event()

    def serve(pending):
        if pending.message == "bad":
            raise RuntimeError("bad frame")
        done.set()

    worker.start(2, serve)
    worker.put(frame(0, "bad"))
    worker.put(frame(1, "good", arrival_s=1.0))
    assert done.wait(BOUND_S)


def test_stop_waits_for_the_frame_being_served_and_drops_the_waiting_one(worker):
    entered, release = threading.Event(), threading.Event()
    served = []

    def serve(pending):
        entered.set()
        assert release.wait(BOUND_S)
        served.append(pending.message)

    worker.start(1, serve)
    worker.put(frame(0, "first"))
    assert entered.wait(BOUND_S)
    worker.put(frame(0, "second"))
    assert worker.stop(0.01) is False
    release.set()
    assert worker.stop(BOUND_S) is True
    assert served == ["first"]
    assert worker.put(frame(0, "third")) is False
    assert not worker.has_waiting_frame


def test_closed_worker_refuses_tasks():
    worker = Worker()
    assert worker.close(BOUND_S)
    with pytest.raises(RuntimeError, match="closed"):
        worker.call(lambda: 1)

"""What a frame's share of the time is, what is expected of a camera, and how much age a stamp may claim."""

from __future__ import annotations

import math

import pytest

from anydepth_perception.serving.arrivals import Arrivals
from anydepth_perception.serving.scheduler import Budget, CountedAge, ExpectedFrame, NewestFrames, PendingFrame

NOW_S = 100.0


def frame(camera: int, *, due_ms: float = math.inf, arrived_ms: float = 0.0, age_ms: float = 0.0) -> PendingFrame[str]:
    """A frame by milliseconds: when it is due and arrived, from now on, and how old it was then."""
    return PendingFrame(camera, "image", NOW_S + arrived_ms * 1e-3, age_ms * 1e-3, NOW_S + due_ms * 1e-3)


def never(budget_ms: float) -> bool:
    return False


def below_ten(budget_ms: float) -> bool:
    return budget_ms < 10.0


def share_ms(frames: NewestFrames[str], is_hopeless=never) -> float | None:
    return frames.shared_budget_ms(NOW_S, is_hopeless)


def periodic(
    frames: NewestFrames[str], camera: int, *, last_ms: float, deadline_ms: float, age_ms: float = 0.0
) -> None:
    """Frames every 100 ms, the last one `last_ms` from now; all are taken."""
    for number in range(-4, 1):
        arrived_ms = last_ms + 100.0 * number
        due_ms = arrived_ms - age_ms + deadline_ms
        frames.put(frame(camera, due_ms=due_ms, arrived_ms=arrived_ms, age_ms=age_ms))
        frames.take()


def test_nothing_else_bounds_nothing():
    assert share_ms(NewestFrames(2)) is None


def test_each_waiting_frame_leaves_a_share_until_its_deadline():
    frames = NewestFrames(3)
    frames.put(frame(1, due_ms=90.0))
    assert share_ms(frames) == pytest.approx(45.0)
    frames.put(frame(2, due_ms=96.0))
    assert share_ms(frames) == pytest.approx(32.0)


def test_frame_that_is_due_soonest_bounds_most_where_the_later_ones_have_time():
    frames = NewestFrames(3)
    frames.put(frame(1, due_ms=300.0))
    frames.put(frame(2, due_ms=40.0))
    assert share_ms(frames) == pytest.approx(20.0)


def test_waiting_frame_without_a_deadline_bounds_nothing_and_takes_no_share():
    frames = NewestFrames(3)
    frames.put(frame(1))
    assert share_ms(frames) is None
    frames.put(frame(2, due_ms=90.0))
    assert share_ms(frames) == pytest.approx(45.0)


def test_frames_that_a_camera_sends_next_bound_as_those_that_wait():
    frames = NewestFrames(2)
    periodic(frames, 1, last_ms=-90.0, deadline_ms=45.0, age_ms=5.0)
    # It arrives in 10 ms with an age of 5 and is due at 50; the one after it at 150.
    assert frames.next_frame(1, NOW_S) == ExpectedFrame(pytest.approx(NOW_S + 0.010), pytest.approx(NOW_S + 0.050))
    assert share_ms(frames) == pytest.approx(25.0)


def test_frame_that_cannot_be_in_time_bounds_nothing_but_takes_its_turn_where_it_waits():
    frames = NewestFrames(3)
    frames.put(frame(1, due_ms=-500.0, age_ms=500.0))
    assert share_ms(frames, below_ten) is None
    frames.put(frame(2, due_ms=90.0))
    assert share_ms(frames, below_ten) == pytest.approx(30.0)


def test_expected_frame_that_cannot_be_in_time_takes_no_turn():
    frames = NewestFrames(3)
    periodic(frames, 1, last_ms=-90.0, deadline_ms=8.0)
    frames.put(frame(2, due_ms=90.0))
    assert share_ms(frames, below_ten) == pytest.approx(45.0)


def test_expected_frame_of_a_clock_that_is_behind_bounds_nothing():
    frames = NewestFrames(2)
    periodic(frames, 1, last_ms=-50.0, deadline_ms=90.0, age_ms=5000.0)
    assert share_ms(frames, below_ten) is None


def test_deadlines_beyond_what_can_be_done_leave_the_time_that_they_cannot_use():
    frames = NewestFrames(6)
    for camera in range(1, 6):
        frames.put(frame(camera, due_ms=32.0))
    # Three turns of 10 ms fit in 32 ms; the frames behind them are late whatever this one takes.
    assert share_ms(frames, below_ten) == pytest.approx(32.0 / 3)


@pytest.mark.parametrize(
    ("own_ms", "shared_ms", "ms", "is_shared"),
    [(50.0, 20.0, 20.0, True), (50.0, 60.0, 50.0, False), (None, 60.0, 60.0, True), (50.0, None, 50.0, False),
     (None, None, None, False)],
)
def test_budget_is_the_smaller_of_what_there_is(own_ms, shared_ms, ms, is_shared):
    budget = Budget(own_ms, shared_ms)
    assert (budget.ms, budget.is_shared) == (ms, is_shared)


def test_stamp_claims_at_most_one_deadline_of_age():
    frames = NewestFrames(2)
    frames.put(frame(0, arrived_ms=-60.0, due_ms=30.0))
    frames.put(frame(1, arrived_ms=0.0, due_ms=-4910.0, age_ms=5000.0))
    # Due 5 s ago by its stamp; as scheduling counts it, when it arrived, which is before the other's deadline.
    assert frames.take().camera == 1
    frames.put(frame(1, arrived_ms=40.0, due_ms=-4870.0, age_ms=5000.0))
    assert frames.take().camera == 0


def test_without_a_deadline_a_stamp_claims_at_most_two_periods():
    frames = NewestFrames(2)
    periodic(frames, 1, last_ms=-100.0, deadline_ms=math.inf, age_ms=5000.0)
    frames.put(frame(0, arrived_ms=-10.0, age_ms=250.0))
    frames.put(frame(1, arrived_ms=0.0, age_ms=5000.0))
    assert frames.take().camera == 0


@pytest.mark.parametrize(("deadline_ms", "most_s"), [(90.0, 0.09), (math.inf, 0.2)])
def test_age_that_does_not_count_is_told(deadline_ms, most_s):
    frames = NewestFrames(2)
    periodic(frames, 0, last_ms=0.0, deadline_ms=deadline_ms, age_ms=5000.0)
    periodic(frames, 1, last_ms=0.0, deadline_ms=deadline_ms, age_ms=20.0)
    assert frames.counted_age(0) == CountedAge(pytest.approx(5.0), pytest.approx(most_s))
    assert frames.counted_age(1) is None


def arrivals(*times_s: float, age_s: float = 0.0) -> Arrivals:
    seen = Arrivals()
    for time_s in times_s:
        seen.add(time_s, age_s)
    return seen


def test_nothing_is_expected_before_the_period_is_known():
    assert arrivals(1.0, 1.1, 1.2).expected(1.2, 2) == []
    assert arrivals(1.0, 1.1, 1.2, 1.3).expected(1.3, 2) == [pytest.approx(1.4), pytest.approx(1.5)]


def test_period_does_not_move_with_lost_frames_and_hiccups():
    assert arrivals(1.0, 1.1, 1.2, 1.5, 1.6, 1.7, 1.79, 1.9).period_s == pytest.approx(0.1)


def test_frame_that_is_a_little_late_is_still_expected_and_one_that_is_lost_is_not():
    seen = arrivals(1.0, 1.1, 1.2, 1.3)
    assert seen.expected(1.44, 1) == [pytest.approx(1.4)]
    assert seen.expected(1.46, 1) == [pytest.approx(1.5)]


def test_nothing_is_expected_of_a_camera_that_fell_silent():
    assert arrivals(1.0, 1.1, 1.2, 1.3).expected(1.7, 2) == []


def test_frames_that_arrive_all_at_once_have_no_period():
    assert arrivals(1.0, 1.0, 1.0, 1.0, 1.0).expected(1.0, 2) == []

"""Many cameras in simulated time: fair shares when the worker can't keep up, deadlines when it can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anydepth_perception.serving.simulated_cameras import Served, SimulatedCamera, simulate

SECONDS = 60.0
SEEDS = (0, 1)


def per_second(served: list[Served], cameras: int) -> np.ndarray:
    return np.bincount([frame.camera for frame in served], minlength=cameras) / SECONDS


def overload(cameras: list[SimulatedCamera], seed: int, service_ms: float = 50.0) -> list[Served]:
    scatter = np.random.default_rng(seed + 100)
    return simulate(
        cameras,
        lambda budget_ms, now_s: service_ms * scatter.uniform(0.9, 1.1),
        seconds=SECONDS,
        is_hopeless=lambda ms: ms < 0.8 * service_ms,
        seed=seed,
    )


def cameras(*deadlines_ms: float, phases_s: float = 0.007, **values) -> list[SimulatedCamera]:
    return [
        SimulatedCamera(deadline_ms, phase_s=index * phases_s, **values)
        for index, deadline_ms in enumerate(deadlines_ms)
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("phases_s", [0.0, 0.007, 0.025])
@pytest.mark.parametrize("deadlines_ms", [(90,) * 4, (90, 90, 45, 90), (90, 90, 45, 0), (20, 90, 45, 3000), (0,) * 4])
def test_cameras_that_send_twice_as_much_as_the_worker_can_do_get_equal_shares(deadlines_ms, phases_s, seed):
    rates = per_second(overload(cameras(*deadlines_ms, phases_s=phases_s), seed), 4)
    np.testing.assert_allclose(rates, 5.0, rtol=0.1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("deadlines_ms", [(90,) * 4, (90, 90, 45, 90), (0,) * 4])
@pytest.mark.parametrize("behind_s", [5.0, 9.0])
def test_clock_that_is_behind_takes_no_turns_from_others(deadlines_ms, behind_s, seed):
    fleet = cameras(*deadlines_ms)
    fleet[1] = replace(fleet[1], behind_s=behind_s)
    np.testing.assert_allclose(per_second(overload(fleet, seed), 4), 5.0, rtol=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_slow_camera_gets_all_it_sends_where_that_is_less_than_its_share(seed):
    fleet = [replace(camera, period_s=1 / 30) for camera in cameras(90, 90)] + [SimulatedCamera(90, period_s=0.25)]
    rates = per_second(overload(fleet, seed), 3)
    np.testing.assert_allclose(rates, [8.0, 8.0, 4.0], rtol=0.1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("deadlines_ms", [(90, 90, 45, 0), (0, 30, 30, 30), (60000, 10, 10, 10)])
def test_from_a_frame_that_gave_way_to_its_cameras_turn_the_others_have_one_each_at_most(deadlines_ms, seed):
    fleet = cameras(*deadlines_ms)
    served = overload(fleet, seed)
    longest_s = dict.fromkeys(range(4), 0.0)
    before: dict[int, float] = {}
    for frame in served:
        longest_s[frame.camera] = max(longest_s[frame.camera], frame.taken_s - before.get(frame.camera, 0.0))
        before[frame.camera] = frame.taken_s
    # The frame that arrives after a turn waits a period until it gives way; then the one in service, and three others.
    most_s = 2 * (fleet[0].period_s + fleet[0].jitter_s) + 4 * 0.055
    assert max(longest_s.values()) <= most_s


BASE_MS, FULL_MS = 6.0, 14.0
SLOWDOWNS = (1.0, 1.8, 1.2, 1.6, 1.0, 1.4)
"""Each for 5 s."""


class TwoDepths:
    """Serves at base or full: full where it is expected to fit the budget, by the slowdown of the frames before."""

    def __init__(self, base_ms: float, full_ms: float, seed: int, only_base: bool = False) -> None:
        self.base_ms, self.full_ms, self.only_base = base_ms, full_ms, only_base
        self.full_frames = 0
        self._expected = 1.2
        self._scatter = np.random.default_rng(seed + 200)

    def __call__(self, budget_ms: float | None, now_s: float) -> float:
        slowdown = SLOWDOWNS[int(now_s / 5.0) % len(SLOWDOWNS)] * self._scatter.uniform(0.95, 1.05)
        fits = budget_ms is None or budget_ms >= self.full_ms * self._expected * 1.15
        is_full = fits and not self.only_base
        self.full_frames += is_full
        self._expected += 0.5 * (slowdown - self._expected)
        return slowdown * (self.full_ms if is_full else self.base_ms)

    def is_hopeless(self, budget_ms: float) -> bool:
        return budget_ms < 0.8 * self.base_ms


def frames_in_time(fleet: list[SimulatedCamera], depths: TwoDepths, seed: int, shares: bool = True) -> set:
    served = simulate(fleet, depths, seconds=SECONDS, is_hopeless=depths.is_hopeless, seed=seed, shares=shares)
    return {(frame.camera, frame.number) for frame in served if frame.in_time}


def avoidable_percent(fleet: list[SimulatedCamera], depths: TwoDepths, seed: int, shares: bool = True) -> float:
    """Of the frames that are in time where all run at base, those that are not."""
    base = frames_in_time(fleet, TwoDepths(depths.base_ms, depths.full_ms, seed, only_base=True), seed)
    return 100.0 * len(base - frames_in_time(fleet, depths, seed, shares)) / len(base)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("phases_s", [0.0, 0.003, 0.033])
@pytest.mark.parametrize("full_ms", [FULL_MS, 22.0])
def test_three_cameras_of_different_deadlines_meet_them_under_load_steps(full_ms, phases_s, seed):
    depths = TwoDepths(BASE_MS, full_ms, seed)
    assert avoidable_percent(cameras(90, 90, 45, phases_s=phases_s), depths, seed) < 0.5


def test_depth_is_kept_where_all_frames_have_time_for_it():
    depths = TwoDepths(BASE_MS, FULL_MS, 0)
    frames_in_time(cameras(90, 90, 45, phases_s=0.033), depths, 0)
    assert depths.full_frames > 0.95 * 3 * SECONDS / 0.1


def test_without_shares_a_long_frame_makes_the_one_that_is_due_soon_late():
    fleet = cameras(90, 90, 45, phases_s=0.003)
    with_shares = avoidable_percent(fleet, TwoDepths(BASE_MS, 30.0, 0), 0)
    assert with_shares < 0.5 < 2.0 < avoidable_percent(fleet, TwoDepths(BASE_MS, 30.0, 0), 0, shares=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_camera_whose_frames_are_late_at_arrival_costs_the_others_no_deadline(seed):
    fleet = cameras(90, 90, 90, 90, phases_s=0.003)
    fleet[0] = replace(fleet[0], behind_s=5.0)
    assert avoidable_percent(fleet, TwoDepths(BASE_MS, FULL_MS, seed), seed) < 0.5


def print_figures() -> None:
    """The figures of docs/decisions.md."""
    fleet = cameras(90, 90, 45, 90)
    fleet[1] = replace(fleet[1], behind_s=9.0)
    print("services a second, one clock 9 s behind:", per_second(overload(fleet, 0), 4).round(2))
    steps = cameras(90, 90, 45, phases_s=0.003)
    for name, fleet, base_ms, full_ms in (
        ("deadlines 90/90/45 ms", steps, BASE_MS, 22.0),
        ("overload, deadlines 150 ms", cameras(150, 150, 150, phases_s=0.033), 40.0, 55.0),
    ):
        for rule, shares, only_base in (("shares", True, False), ("own deadline", False, False), ("base", True, True)):
            depths = TwoDepths(base_ms, full_ms, 0, only_base)
            in_time = len(frames_in_time(fleet, depths, 0, shares))
            print(f"{name}, {base_ms:g} to {full_ms:g} ms, {rule}: {in_time} in time, {depths.full_frames} at full")


if __name__ == "__main__":
    print_figures()

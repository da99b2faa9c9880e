"""CPU load and memory, of stand-ins for what psutil tells and of this machine."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from anydepth_perception.profile.load import CoreLoads, CpuLoad, process_memory_bytes

Times = type(psutil.cpu_times())


def tell(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Lets psutil tell of these times of all CPUs, and of none in whatever else there is."""
    times = Times(**{**dict.fromkeys(Times._fields, 0.0), **seconds})
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)


def test_load_is_the_busy_share_since_the_last_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, user=10.0, idle=10.0)
    load = CpuLoad()
    tell(monkeypatch, user=10.3, idle=10.7)
    assert load.sample() == pytest.approx(0.3)
    tell(monkeypatch, user=11.3, idle=10.7)
    assert load.sample() == pytest.approx(1.0)


def test_waiting_for_a_disk_is_idle_and_a_guest_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, user=10.0)
    load = CpuLoad()
    tell(monkeypatch, user=11.0, guest=1.0, iowait=1.0, system=1.0, steal=1.0)
    assert load.sample() == pytest.approx(0.75)


def test_load_is_unknown_while_no_time_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, user=10.0, idle=10.0)
    assert CpuLoad().sample() is None


@pytest.mark.parametrize("error", [FileNotFoundError("/proc/stat"), ValueError("abc"), psutil.AccessDenied()])
def test_unreadable_load_is_unknown(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    assert CpuLoad().sample() is None


def test_load_of_this_machine_is_a_share() -> None:
    load = CpuLoad()
    sample = None
    for _ in range(10**6):  # clock ticks are 10 ms apart
        sample = load.sample()
        if sample is not None:
            break
    assert sample is not None
    assert 0.0 <= sample <= 1.0


def tell_cores(monkeypatch: pytest.MonkeyPatch, *busy_and_idle_s: tuple[float, float]) -> None:
    """Lets psutil tell of these times of each CPU."""
    zeros = dict.fromkeys(Times._fields, 0.0)
    cores = [Times(**{**zeros, "user": busy, "idle": idle}) for busy, idle in busy_and_idle_s]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: cores)


def test_load_of_each_cpu_is_its_busy_share_since_the_last_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_cores(monkeypatch, (10.0, 10.0), (5.0, 5.0))
    loads = CoreLoads()
    tell_cores(monkeypatch, (10.3, 10.7), (6.0, 5.0))
    assert loads.sample() == pytest.approx((0.3, 1.0))
    assert loads.sample() == ()
    tell_cores(monkeypatch, (10.3, 11.7), (6.5, 5.5))
    assert loads.sample() == pytest.approx((0.0, 0.5))


def test_cpu_that_goes_starts_the_loads_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_cores(monkeypatch, (10.0, 10.0), (5.0, 5.0))
    loads = CoreLoads()
    tell_cores(monkeypatch, (10.5, 10.5))
    assert loads.sample() == ()
    tell_cores(monkeypatch, (11.0, 11.0))
    assert loads.sample() == pytest.approx((0.5,))


def test_cpu_whose_time_stands_still_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_cores(monkeypatch, (10.0, 10.0), (5.0, 5.0))
    loads = CoreLoads()
    tell_cores(monkeypatch, (11.0, 10.0), (5.0, 5.0))
    assert loads.sample() == pytest.approx((1.0, 0.0))


def test_memory_of_this_process_is_plausible() -> None:
    memory = process_memory_bytes()
    assert memory is not None
    assert 1 << 20 < memory < 1 << 40


def test_unreadable_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise psutil.AccessDenied()

    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=refuse))
    assert process_memory_bytes() is None

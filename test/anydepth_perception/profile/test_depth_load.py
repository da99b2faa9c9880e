"""CPU load and memory, read from trees of files like /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from anydepth_perception.profile.load import CpuLoad, process_memory_bytes


def write_stat(proc: Path, busy: int, idle: int) -> None:
    (proc / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n")


def test_load_is_the_busy_share_since_the_last_sample(tmp_path: Path) -> None:
    write_stat(tmp_path, 1000, 1000)
    load = CpuLoad(tmp_path)
    write_stat(tmp_path, 1030, 1070)
    assert load.sample() == pytest.approx(0.3)
    write_stat(tmp_path, 1130, 1070)
    assert load.sample() == pytest.approx(1.0)


def test_load_is_unknown_while_no_time_passed(tmp_path: Path) -> None:
    write_stat(tmp_path, 1000, 1000)
    assert CpuLoad(tmp_path).sample() is None


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu a b c d\n", "cpu 1 2\n"])
def test_unreadable_load_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    assert CpuLoad(tmp_path).sample() is None
    assert CpuLoad(tmp_path / "nowhere").sample() is None


def test_load_of_this_machine_is_a_share() -> None:
    load = CpuLoad()
    sample = None
    for _ in range(10**6):  # clock ticks are 10 ms apart
        sample = load.sample()
        if sample is not None:
            break
    assert sample is not None
    assert 0.0 <= sample <= 1.0


def test_memory_of_this_process_is_plausible() -> None:
    memory = process_memory_bytes()
    assert memory is not None
    assert 1 << 20 < memory < 1 << 40


def test_unreadable_memory_is_unknown(tmp_path: Path) -> None:
    assert process_memory_bytes(tmp_path) is None

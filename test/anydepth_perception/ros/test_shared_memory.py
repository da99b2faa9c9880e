"""The room in /dev/shm against what the image profile needs, on figures given by hand."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from anydepth_perception.ros import qos
from anydepth_perception.ros.shared_memory import remove_leftovers, segment_bytes, shared_memory_problem

MIB = 1 << 20


@pytest.fixture(autouse=True)
def our_profile(monkeypatch):
    for variable in qos.PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    qos.use_image_profile()
    yield
    for variable in qos.PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def memory(total_mib: int, free_mib: int):
    pages = MIB // 4096
    return lambda path: SimpleNamespace(f_frsize=4096, f_blocks=total_mib * pages, f_bavail=free_mib * pages)


def test_the_shipped_profile_asks_for_64_mib():
    assert segment_bytes(qos.image_profile_path()) == 64 * MIB


@pytest.mark.parametrize(("total_mib", "free_mib"), [(64, 64), (64, 0), (8000, 30)])
def test_too_little_room_is_told_with_what_to_do(total_mib, free_mib):
    text = shared_memory_problem(memory(total_mib, free_mib))
    assert f"/dev/shm has {free_mib} of {total_mib} MiB free" in text
    assert "takes 64 MiB" in text and "--shm-size=1g" in text


def test_enough_room_is_no_problem():
    assert shared_memory_problem(memory(8000, 4000)) == ""


def test_no_shared_memory_at_all_is_told():
    def missing(path):
        raise FileNotFoundError(2, "No such file or directory")

    assert "/dev/shm cannot be used (No such file or directory)" in shared_memory_problem(missing)


def test_of_a_profile_that_the_user_chose_nothing_is_said(monkeypatch):
    for variable in qos.PROFILE_VARIABLES:
        monkeypatch.setenv(variable, "/chosen.xml")
    assert shared_memory_problem(memory(64, 0)) == ""


def segment(folder: Path, name: str, age_s: float = 3600.0) -> tuple[Path, Path]:
    """A segment and the file of its lock, as Fast DDS leaves them."""
    paths = folder / name, folder / f"{name}_el"
    for path in paths:
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s,) * 2)
    return paths


def test_segments_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    left = segment(tmp_path, "fastrtps_04ae5c4ed1debc2d")
    alive = segment(tmp_path, "fastrtps_14ae5c4ed1debc2d")
    young = segment(tmp_path, "fastrtps_24ae5c4ed1debc2d", age_s=5.0)
    others = [*segment(tmp_path, "fastrtps_port7411"), *segment(tmp_path, "psm_04ae5c4ed1debc2d")]
    with alive[1].open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_leftovers(tmp_path) == 1
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in (*alive, *young, *others))
    assert remove_leftovers(tmp_path / "none") == 0


def test_segments_of_another_user_stay(tmp_path, monkeypatch):
    paths = segment(tmp_path, "fastdds_04ae5c4ed1debc2d")
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert remove_leftovers(tmp_path) == 0
    assert all(path.exists() for path in paths)

"""The shared memory that Fast DDS carries images in: whether it has room, and what killed processes left in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from anydepth_perception.ros.qos import PROFILE_VARIABLES, image_profile_path

SHARED_MEMORY = "/dev/shm"
_SEGMENT = re.compile(r"<segment_size>\s*(\d+)\s*</segment_size>")
_LEFTOVER = re.compile(r"(fast(?:rtps|dds)_[0-9a-f]{16})_el")
_YOUNG_S = 60.0
"""A segment this young may belong to a process that has not locked it yet."""

_MIB = 1 << 20


def segment_bytes(profile: Path) -> int:
    """Size of the segment that a profile file asks for in each process, 0 where it says none."""
    try:
        found = _SEGMENT.search(profile.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return int(found[1]) if found else 0


def shared_memory_problem(statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> str:
    """What is wrong with the room in /dev/shm and how to mend it, in one line; empty where nothing is.

    It looks only where our own profile is in use: what another one needs is not known. The publisher of images has a
    segment of its own beside this process's.
    """
    profile = image_profile_path()
    if profile is None or not any(os.environ.get(variable) == str(profile) for variable in PROFILE_VARIABLES):
        return ""
    needed = segment_bytes(profile)
    try:
        status = statvfs(SHARED_MEMORY)
    except OSError as error:
        return f"{SHARED_MEMORY} cannot be used ({error.strerror}): images go over the network stack and may get lost"
    total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    if total >= 2 * needed and free >= needed:
        return ""
    return (
        f"{SHARED_MEMORY} has {free // _MIB} of {total // _MIB} MiB free, and each process that handles images takes "
        f"{needed // _MIB} MiB: images may get lost; docker has --shm-size=1g or --ipc=host for it, and what ended "
        f"processes left behind there may be removed"
    )


def remove_leftovers(folder: Path = Path(SHARED_MEMORY)) -> int:
    """Removes the segments of this user's processes that were killed; how many.

    A living process holds a lock on the file beside its segment, and the system lets go of it when the process ends.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for lock in list(folder.iterdir()):
            match = _LEFTOVER.fullmatch(lock.name)
            if match:
                with contextlib.suppress(OSError):
                    removed += _remove_if_left(lock, folder / match[1])
    return removed


def _remove_if_left(lock: Path, segment: Path) -> bool:
    """Raises: OSError, where the lock is held, or another process was faster."""
    with lock.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _YOUNG_S:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        segment.unlink(missing_ok=True)
        lock.unlink()
        return True

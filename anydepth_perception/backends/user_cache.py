"""The user's cache folder, for engines and profiles, found also where the user has no home."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

_LOG = logging.getLogger(__name__)

_NAME = "anydepth_perception"

NOWHERE = Path(os.devnull) / _NAME
"""Nothing can be written or found below it: whoever tries tells of it, as of any other folder that cannot be used."""


def user_cache_folder() -> Path:
    """Where this package keeps what it can make again.

    It is in $XDG_CACHE_HOME, else in ~/.cache. A user without a home, as a container's often is, has a folder among
    the temporary files that is created here and nobody else can enter; where that fails too, it is `NOWHERE`, and the
    log says why.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(configured):
        return Path(configured) / _NAME
    home = os.path.expanduser("~")  # stays `~` where neither HOME nor the user's entry in the system tells
    # Containers set HOME=/ for a user whom the system does not know.
    if os.path.isabs(home) and (home != os.sep or os.access(home, os.W_OK)):
        return Path(home) / ".cache" / _NAME
    try:
        return _temporary_folder()
    except OSError as error:
        reason = " ".join(str(error).split())
        _LOG.warning("nothing is cached: there is no home, and no temporary folder: %s; set XDG_CACHE_HOME", reason)
        return NOWHERE


def distrust(status: os.stat_result) -> str:
    """Why what has this status is not read: somebody else can have changed it. Empty where nobody can.

    An engine is code: whoever can write one runs what he likes in this process. The user himself and root may.
    """
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to the user {status.st_uid}, not to {os.geteuid()} or root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written by others (mode {stat.S_IMODE(status.st_mode):o}); chmod go-w mends that"
    return ""


def _temporary_folder() -> Path:
    """A folder among the temporary files that is this user's alone.

    Raises:
        OSError: it cannot be created, or somebody else has, or may enter, what has its name.
    """
    folder = Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone (mode 700)")
    return folder

"""Built engines on disk: found again by what they were built from, checked when read, bounded in size."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from anydepth_perception.backends.user_cache import distrust, user_cache_folder

FORMAT_VERSION = 1
"""Of the files, and of how graphs are composed and converted: a change of either makes old entries useless."""

DEFAULT_MAX_BYTES = 4 << 30

TIMING_CACHE_FILE = "tensorrt.timing"
"""What TensorRT keeps beside the engines: it is neither counted nor removed."""

_MAGIC = b"anydepth engine\n"
_MAX_HEADER_BYTES = 1 << 20
_YOUNG_S = 60.0
"""A file this young may belong to a writer that has not locked it yet."""

_ENTRY = re.compile(r"[0-9a-f]{64}\.engine")
_UNFINISHED = re.compile(r"\.[0-9a-f]{64}\..*\.tmp")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineKey:
    """All that decides what an engine computes and where it runs; keys that are equal name the same engine.

    `segments` are SHA-256 sums in execution order, `tensors` what the segments read and write, as text, and
    `outputs` the tensors that the engine has to write.
    """

    segments: tuple[str, ...]
    tensors: tuple[str, ...]
    outputs: tuple[str, ...]
    backend: str
    version: str
    device: str
    precision: str
    flags: Mapping[str, str]

    def to_json(self) -> str:
        """The key as text, the same for equal keys."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self), "flags": dict(self.flags)}, sort_keys=True)

    @property
    def file_name(self) -> str:
        """Name of the entry: nothing of the key's text stands in it."""
        return f"{hashlib.sha256(self.to_json().encode()).hexdigest()}.engine"


class EngineCache:
    """A folder of engines. Threads and processes may share it; a folder that cannot be used costs one warning."""

    def __init__(self, folder: Path | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Touches nothing on disk yet.

        Args:
            folder: where the engines are; None for `default_folder()`.
            max_bytes: after an entry is written, the least recently used ones go until all take no more than this.

        Raises:
            ValueError: `max_bytes` is negative.
        """
        if max_bytes < 0:
            raise ValueError(f"max_bytes is {max_bytes}, expected 0 or more")
        self.folder = default_folder() if folder is None else folder
        self._max_bytes = max_bytes
        self.problem = ""
        """Why the folder cannot be used and what to do, in one line; empty while all is well."""

    def get(self, key: EngineKey) -> bytes | None:
        """The engine of `key`, or None if it has to be built; an entry that is damaged or not ours is removed."""
        path = self.folder / key.file_name
        try:
            self._check_folder()
            with _open_to_read(path) as file:
                engine = _read_entry(file, key, max(self._max_bytes, DEFAULT_MAX_BYTES))
                with contextlib.suppress(OSError):  # a folder that is read-only keeps the order it has
                    os.utime(file.fileno())
                return engine
        except FileNotFoundError:
            return None
        except _BadEntryError as error:
            _LOG.warning("engine cache: %s: %s; it is removed and the engine built again", path, error)
            self.remove(key)
        except (OSError, MemoryError) as error:
            self._warn("read", error)
        return None

    def put(self, key: EngineKey, engine: bytes) -> bool:
        """Keeps an engine for later; returns whether it could, and warns once where it could not."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_folder()
            self._remove_unfinished()
            self._write(key, engine)
            self._prune(keep=key.file_name)
        except OSError as error:
            self._warn("write", error)
            return False
        return True

    def remove(self, key: EngineKey) -> None:
        """Removes the entry of `key`, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            try:
                (self.folder / key.file_name).unlink()
            except OSError as error:
                self._warn("remove an entry of", error)

    def size_bytes(self) -> int:
        """What all entries take on disk."""
        return sum(status.st_size for _, status in self._entries())

    def _check_folder(self) -> None:
        """Raises: PermissionError, where somebody else could have put an entry there; OSError, where there is none."""
        reason = distrust(os.stat(self.folder))
        if reason:
            raise PermissionError(f"it {reason}")

    def _write(self, key: EngineKey, engine: bytes) -> None:
        """Writes aside and renames, so that a reader sees all of an entry or none."""
        name = key.file_name
        handle, aside = tempfile.mkstemp(prefix=f".{name.partition('.')[0]}.", suffix=".tmp", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # says that its writer is alive; see _remove_unfinished
                file.write(_header(key, engine))
                file.write(engine)
                file.flush()
                os.fsync(file.fileno())
                os.replace(aside, self.folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise
        with contextlib.suppress(OSError):  # some file systems cannot
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _prune(self, keep: str) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[1].st_mtime_ns)
        total = sum(status.st_size for _, status in entries)
        for path, status in entries:
            if total <= self._max_bytes:
                return
            if path.name != keep:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    path.unlink()
                total -= status.st_size

    def _remove_unfinished(self) -> None:
        """Removes what processes that ended while they wrote left behind; living ones hold a lock."""
        for path in self.folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                with contextlib.suppress(OSError, _BadEntryError), _open_to_read(path) as file:
                    if time.time() - os.fstat(file.fileno()).st_mtime > _YOUNG_S:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Files that are called like entries; nothing else in the folder is ours to count or to remove."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if _ENTRY.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        yield path, status

    def _warn(self, task: str, error: Exception) -> None:
        """One line in the life of this cache: what fails once fails for every engine."""
        if self.problem:
            return
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.problem = (
            f"cannot {task} the engine cache {self.folder}: {reason}; engines are built at every start, set cache_dir "
            f"to a folder that can be written and has room"
        )
        _LOG.warning("%s", self.problem)


def default_folder() -> Path:
    """Where engines are kept: in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    return user_cache_folder() / "engines"


class _BadEntryError(Exception):
    """Why an entry cannot be trusted."""


def _header(key: EngineKey, engine: bytes) -> bytes:
    document = {"key": json.loads(key.to_json()), "bytes": len(engine), "sha256": hashlib.sha256(engine).hexdigest()}
    return _MAGIC + json.dumps(document).encode() + b"\n"


def _read_entry(file: BinaryIO, key: EngineKey, max_bytes: int) -> bytes:
    """The engine in an open entry, all of it checked: first whose it is and how large, then what it holds.

    Raises:
        _BadEntryError: it is not the engine of `key`, whole and unchanged.
    """
    status = os.fstat(file.fileno())
    reason = distrust(status)
    if reason:
        raise _BadEntryError(reason)
    if status.st_size > max_bytes + _MAX_HEADER_BYTES:
        raise _BadEntryError(f"has {status.st_size} bytes, more than the whole cache may take")
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _BadEntryError("is not an engine of this package")
    line = file.readline(_MAX_HEADER_BYTES)
    try:
        header = json.loads(line)
        found, length, sha256 = header["key"], header["bytes"], header["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _BadEntryError("its header is damaged") from error
    if found != json.loads(key.to_json()):
        raise _BadEntryError("it was built from something else")
    size = status.st_size - file.tell()
    if size != length:
        raise _BadEntryError(f"it holds {size} bytes of an engine of {length}")
    engine = file.read()
    if hashlib.sha256(engine).hexdigest() != sha256:
        raise _BadEntryError("its SHA-256 sum does not match, it is damaged")
    return engine


def _open_to_read(path: Path) -> BinaryIO:
    """Opens a regular file; symbolic links are not followed, and a pipe keeps nobody waiting.

    Raises:
        FileNotFoundError: there is nothing.
        _BadEntryError: it is something else.
        OSError: it cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError:
        if path.is_symlink():
            raise _BadEntryError("is a symbolic link") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _BadEntryError("is not a regular file")
    return os.fdopen(handle, "rb")

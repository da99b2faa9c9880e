"""The file in which TensorRT's measurements, or TensorRT-RTX's compiled kernels, outlast a process."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

from anydepth_perception.backends.user_cache import distrust

_LOG = logging.getLogger(__name__)


class LibraryCache:
    """What the library wants to find again, in memory and, where a path is given, in a file.

    The file begins with a sum over its content and the key. One that is damaged, or of another library or GPU, is
    taken for empty: the library then does its work again.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        """`key` names all that the content depends on: library, version, GPU."""
        self._path = path
        self._key = key.encode()
        self.content = b"" if path is None else self._read(path)

    def update(self, content: bytes) -> None:
        """Keeps new content. A file that cannot be written is logged, and costs time at the next start only."""
        if content == self.content:
            return
        self.content = content
        if self._path is None:
            return
        try:
            self._write(self._path)
        except OSError as error:
            _LOG.warning("%s: cannot be written, the next start will take longer: %s", self._path, error)

    def _sum(self, content: bytes) -> bytes:
        return hashlib.sha256(hashlib.sha256(self._key).digest() + content).digest()

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                reason = distrust(os.fstat(file.fileno())) or distrust(path.parent.stat())
                data = b"" if reason else file.read()
        except OSError:
            return b""
        if reason:
            _LOG.warning("%s: is not used, it or its folder %s", path, reason)
        size = hashlib.sha256().digest_size
        return data[size:] if data[:size] == self._sum(data[size:]) else b""

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._sum(self.content) + self.content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

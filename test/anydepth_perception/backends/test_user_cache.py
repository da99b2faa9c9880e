"""Where the user's cache is, for users with and without a home."""

from __future__ import annotations

import logging
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from anydepth_perception.backends.engine_cache import EngineCache, EngineKey
from anydepth_perception.backends.user_cache import NOWHERE, user_cache_folder


def unknown_uid(uid: int) -> pwd.struct_passwd:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user whom the system does not know, with neither HOME nor XDG_CACHE_HOME; the folder of temporary files."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown_uid)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_configured_cache_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/cache")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_cache_folder() == Path("/somewhere/cache/anydepth_perception")


def test_a_relative_path_is_no_configured_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_cache_folder() == Path("/home/somebody/.cache/anydepth_perception")


def test_without_home_it_is_that_of_the_users_entry(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("somebody", "x", os.getuid(), os.getgid(), "", "/home/by_entry", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    assert user_cache_folder() == Path("/home/by_entry/.cache/anydepth_perception")


def test_a_user_without_a_home_has_a_private_temporary_folder(homeless: Path) -> None:
    folder = user_cache_folder()
    assert folder == homeless / f"anydepth_perception-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert user_cache_folder() == folder


def test_a_root_folder_that_cannot_be_written_is_no_home(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert user_cache_folder().parent == homeless


@pytest.mark.parametrize("kind", ["entered by others", "a link", "of somebody else"])
def test_a_temporary_folder_that_is_not_the_users_alone_is_refused_in_one_line(
    homeless: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = homeless / f"anydepth_perception-{os.getuid()}"
    if kind == "a link":
        (homeless / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(homeless / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
        if kind == "entered by others":
            folder.chmod(0o755)
        else:
            owner = os.getuid()
            monkeypatch.setattr(os, "getuid", lambda: owner + 1)
            folder.rename(homeless / f"anydepth_perception-{owner + 1}")
    with caplog.at_level(logging.WARNING):
        assert user_cache_folder() == NOWHERE
    (record,) = caplog.records
    assert "not a folder of this user alone" in record.getMessage() and "\n" not in record.getMessage()


def test_without_a_temporary_folder_nothing_is_cached_and_the_engine_cache_says_so(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_usable() -> str:
        raise FileNotFoundError("no usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    cache = EngineCache()
    assert cache.folder == NOWHERE / "engines"
    assert not cache.put(EngineKey((), (), (), "backend", "1", "cpu", "float32", {}), b"engine")
    assert "cannot write the engine cache /dev/null/anydepth_perception/engines: Not a directory" in cache.problem

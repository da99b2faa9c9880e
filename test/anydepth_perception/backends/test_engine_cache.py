"""The engine cache: what it gives back is what was put in, and nothing that happens on disk stops the detector."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anydepth_perception.backends import engine_cache
from anydepth_perception.backends.engine_cache import EngineCache, EngineKey, default_folder

KEY = EngineKey(
    segments=("a" * 64, "b" * 64),
    tensors=("in images uint8[1, 64, 64, 3]", "out boxes float32[1, 84, 4]"),
    outputs=("boxes", "logits"),
    backend="onnxruntime",
    version="1.27.0",
    device="Some CPU",
    precision="float32",
    flags={"threads": "2"},
)
ENGINE = bytes(range(256)) * 40
OTHERS = {
    "segments": ("b" * 64, "a" * 64),
    "tensors": ("in images uint8[1, 96, 64, 3]", "out boxes float32[1, 84, 4]"),
    "outputs": ("boxes",),
    "backend": "openvino",
    "version": "1.27.1",
    "device": "Other CPU",
    "precision": "float16",
    "flags": {"threads": "1"},
}


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def other_key(index: int) -> EngineKey:
    return dataclasses.replace(KEY, version=f"9.{index}")


def entry(cache: EngineCache, key: EngineKey = KEY) -> Path:
    return cache.folder / key.file_name


def test_an_engine_comes_back_as_it_was_put_in(cache: EngineCache) -> None:
    assert cache.put(KEY, ENGINE)
    assert EngineCache(cache.folder).get(KEY) == ENGINE


def test_an_engine_that_was_not_put_in_is_not_there(cache: EngineCache) -> None:
    assert cache.get(KEY) is None


@pytest.mark.parametrize("field", OTHERS)
def test_another_key_finds_nothing(cache: EngineCache, field: str) -> None:
    cache.put(KEY, ENGINE)
    assert cache.get(dataclasses.replace(KEY, **{field: OTHERS[field]})) is None


def test_entries_of_another_format_are_not_found(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, ENGINE)
    monkeypatch.setattr(engine_cache, "FORMAT_VERSION", engine_cache.FORMAT_VERSION + 1)
    assert cache.get(KEY) is None


def test_no_text_of_a_key_becomes_a_path(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    key = dataclasses.replace(KEY, backend="../../outside", version="/etc/passwd")
    cache.put(key, ENGINE)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.engine")] == [Path("engines") / key.file_name]


def flip(position: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def forget_sum(data: bytes) -> bytes:
    magic, header, engine = data.split(b"\n", 2)
    document = json.loads(header)
    del document["sha256"]
    return b"\n".join([magic, json.dumps(document).encode(), engine])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated header": lambda data: data[:40],
    "truncated engine": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "a flipped bit of the engine": flip(-1000),
    "a flipped bit of the magic": flip(2),
    "a flipped bit of the header": flip(40),
    "no sum": forget_sum,
    "another file": lambda data: b"\x80\x04\x95" + bytes(1000),
    "a header without end": lambda data: data.split(b"\n")[0] + b"\n" + b"[" * 3_000_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_removed_and_said_so(
    cache: EngineCache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put(KEY, ENGINE)
    entry(cache).write_bytes(DAMAGES[damage](entry(cache).read_bytes()))
    assert cache.get(KEY) is None
    assert not entry(cache).exists()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(entry(cache)) in caplog.text


def test_the_entry_of_another_key_under_this_name_is_refused(cache: EngineCache) -> None:
    cache.put(KEY, ENGINE)
    cache.put(other_key(1), b"other")
    entry(cache).write_bytes(entry(cache, other_key(1)).read_bytes())
    assert cache.get(KEY) is None


def test_no_flipped_byte_gives_another_engine(cache: EngineCache) -> None:
    cache.put(KEY, ENGINE)
    data = entry(cache).read_bytes()
    for position in range(0, len(data), 37):
        entry(cache).write_bytes(flip(position)(data))
        assert cache.get(KEY) in (None, ENGINE), position


def test_a_symbolic_link_is_not_followed(cache: EngineCache, tmp_path: Path) -> None:
    cache.put(KEY, ENGINE)
    outside = tmp_path / "outside"
    entry(cache).rename(outside)
    entry(cache).symlink_to(outside)
    assert cache.get(KEY) is None
    cache.put(KEY, b"new")
    assert outside.read_bytes().endswith(ENGINE)
    assert cache.get(KEY) == b"new"


def test_a_pipe_in_the_place_of_an_entry_keeps_nobody_waiting(cache: EngineCache) -> None:
    cache.folder.mkdir(parents=True)
    os.mkfifo(entry(cache))
    assert cache.get(KEY) is None


def test_a_folder_in_the_place_of_an_entry_costs_a_warning(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    entry(cache).mkdir(parents=True)
    assert cache.get(KEY) is None
    assert not cache.put(KEY, ENGINE)
    assert "cannot" in caplog.text


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_costs_one_warning_that_helps(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, fail)
    assert not cache.put(KEY, ENGINE)
    assert not cache.put(other_key(1), ENGINE)
    assert len(caplog.records) == 1
    for part in ("cannot write", str(cache.folder), "No space left", "cache_dir"):
        assert part in caplog.text
    assert list(cache.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file" / "engines")
    assert cache.get(KEY) is None
    assert not cache.put(KEY, ENGINE)
    assert len(caplog.records) == 1


def test_a_read_only_folder_still_gives_its_engines(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, ENGINE)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get(KEY) == ENGINE


def aged(cache: EngineCache, count: int) -> list[EngineKey]:
    """Puts `count` engines, the first used longest ago."""
    keys = [other_key(index) for index in range(count)]
    for index, key in enumerate(keys):
        cache.put(key, ENGINE)
        os.utime(entry(cache, key), (1000 + index, 1000 + index))
    return keys


def test_the_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    keys = aged(EngineCache(tmp_path), 4)
    size = entry(EngineCache(tmp_path), keys[0]).stat().st_size
    cache = EngineCache(tmp_path, max_bytes=size * 7 // 2)
    assert cache.get(keys[0]) is not None  # used just now
    cache.put(KEY, ENGINE)
    assert [cache.get(key) is not None for key in (*keys, KEY)] == [True, False, False, True, True]


def test_the_entry_just_written_stays_however_large(tmp_path: Path) -> None:
    aged(EngineCache(tmp_path), 2)
    cache = EngineCache(tmp_path, max_bytes=10)
    cache.put(KEY, ENGINE)
    assert cache.get(KEY) == ENGINE
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_are_no_entries_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(bytes(100_000))
    cache = EngineCache(tmp_path, max_bytes=0)
    cache.put(KEY, ENGINE)
    assert (tmp_path / "notes.txt").exists()
    assert cache.size_bytes() == entry(cache).stat().st_size


def unfinished(folder: Path, name: str, age_s: float) -> Path:
    path = folder / f".{'0' * 64}.{name}.tmp"
    path.write_bytes(b"half")
    modified = path.stat().st_mtime - age_s
    os.utime(path, (modified, modified))
    return path


def test_what_a_dead_process_left_half_written_is_removed(tmp_path: Path) -> None:
    left = unfinished(tmp_path, "dead", 3600)
    EngineCache(tmp_path).put(KEY, ENGINE)
    assert not left.exists()


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    locked, young = unfinished(tmp_path, "locked", 3600), unfinished(tmp_path, "young", 0)
    with locked.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        EngineCache(tmp_path).put(KEY, ENGINE)
    assert (locked.exists(), young.exists()) == (True, True)


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Both write and read the same few entries, with a bound that makes each remove the other's."""
    script = (
        "import dataclasses, sys\n"
        "from pathlib import Path\n"
        "from test_engine_cache import ENGINE, EngineCache, other_key\n"
        "cache = EngineCache(Path(sys.argv[1]), max_bytes=4 * len(ENGINE))\n"
        "for step in range(200):\n"
        "    key = other_key(step % 6)\n"
        "    assert cache.get(key) in (None, ENGINE)\n"
        "    assert cache.put(key, ENGINE)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    assert errors == ["", ""]


def test_the_default_folder_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "anydepth_perception" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert EngineCache().folder == Path("/home/somebody/.cache/anydepth_perception/engines")


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes is -1"):
        EngineCache(max_bytes=-1)


def test_an_entry_that_others_may_write_is_removed_and_said_so(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put(KEY, ENGINE)
    entry(cache).chmod(0o666)
    assert cache.get(KEY) is None
    assert "may be written by others (mode 666)" in caplog.text
    assert not entry(cache).exists()


def test_an_entry_of_another_user_is_not_used(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put(KEY, ENGINE)
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda handle: with_owner(real(handle), os.geteuid() + 1))
    assert cache.get(KEY) is None
    assert f"belongs to the user {os.geteuid() + 1}" in caplog.text


def with_owner(status: os.stat_result, user: int) -> os.stat_result:
    return os.stat_result([*status[:4], user, *status[5:10]])


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_in_which_others_may_write_is_not_used(
    cache: EngineCache, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    cache.put(KEY, ENGINE)
    cache.folder.chmod(mode)
    fresh = EngineCache(cache.folder)
    assert fresh.get(KEY) is None
    assert not fresh.put(other_key(1), ENGINE)
    assert f"may be written by others (mode {mode:o}); chmod go-w mends that" in fresh.problem
    assert len(caplog.records) == 1
    cache.folder.chmod(0o755)
    assert EngineCache(cache.folder).get(KEY) == ENGINE


def test_a_folder_of_another_user_is_not_used(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, ENGINE)
    real = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **how: with_owner(real(path, **how), os.geteuid() + 1)
    )
    assert cache.get(KEY) is None
    assert "belongs to the user" in cache.problem


def test_a_sparse_entry_of_40_gib_is_removed_unread(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.put(KEY, ENGINE)
    os.truncate(entry(cache), 40 << 30)
    assert cache.get(KEY) is None
    assert "42949672960 bytes, more than the whole cache may take" in caplog.text

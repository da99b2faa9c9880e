"""Writing and finding bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle, tiny_manifest, tiny_segments

from anydepth_perception.bundle import Bundle, BundleError, find_bundle, locate, write_bundle


def test_written_bundle_loads_again(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "new.anydepth", tiny_manifest(), tiny_segments(), {"weights.safetensors": b"w"})
    assert Bundle.load(tmp_path / "new.anydepth").fingerprint == bundle.fingerprint
    assert (tmp_path / "new.anydepth" / "weights.safetensors").read_bytes() == b"w"
    assert [path.name for path in tmp_path.iterdir()] == ["new.anydepth"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    assert make_tiny_bundle(tmp_path / "a").fingerprint == make_tiny_bundle(tmp_path / "b").fingerprint


def test_new_bundle_takes_the_place_of_the_old(tmp_path: Path) -> None:
    old = make_tiny_bundle(tmp_path / "tiny.anydepth", seed=0)
    new = make_tiny_bundle(tmp_path / "tiny.anydepth", seed=1)
    assert old.fingerprint != new.fingerprint
    assert Bundle.load(tmp_path / "tiny.anydepth").fingerprint == new.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.anydepth"]


def test_invalid_bundle_leaves_the_old_one_alone(tmp_path: Path) -> None:
    old = make_tiny_bundle(tmp_path / "tiny.anydepth")
    manifest = tiny_manifest()
    manifest["class_names"] = ["one"]
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "tiny.anydepth", manifest, tiny_segments())
    assert Bundle.load(tmp_path / "tiny.anydepth").fingerprint == old.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.anydepth"]


def test_segments_must_be_those_listed(tmp_path: Path) -> None:
    segments = tiny_segments()
    del segments["head"]
    with pytest.raises(BundleError, match=r"differ: \['head'\]"):
        write_bundle(tmp_path / "tiny.anydepth", tiny_manifest(), segments)


def test_file_outside_the_bundle_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a plain path"):
        write_bundle(tmp_path / "tiny.anydepth", tiny_manifest(), tiny_segments(), {"../outside": b""})
    assert list(tmp_path.iterdir()) == []


def test_bundle_is_found_by_path(tiny_bundle_path: Path) -> None:
    assert find_bundle(tiny_bundle_path) == tiny_bundle_path
    assert find_bundle(str(tiny_bundle_path)) == tiny_bundle_path


@pytest.mark.parametrize("name", ["tiny", "tiny.anydepth"])
def test_bundle_is_found_by_name(tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(locate, "shared_folders", lambda name: [Path("/nowhere"), tiny_bundle_path.parent])
    assert find_bundle(name) == tiny_bundle_path


def test_unknown_bundle_is_refused_with_the_places_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "shared_folders", lambda name: [tmp_path])
    with pytest.raises(BundleError, match=rf"none: no such bundle; looked for none, {tmp_path}/none\.anydepth"):
        find_bundle("none")


def test_folder_that_happens_to_have_the_name_does_not_hide_the_bundle(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locate, "shared_folders", lambda name: [tiny_bundle_path.parent])
    assert find_bundle("tiny") == tiny_bundle_path


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0", "~nobody-of-this-name/x", "a/b/c"])
def test_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        find_bundle(name)
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.load(name)


def test_empty_name_is_refused() -> None:
    with pytest.raises(BundleError, match="the model's name is empty"):
        find_bundle("")


def test_manifest_on_disk_names_all_sums(tiny_bundle_path: Path) -> None:
    document = json.loads((tiny_bundle_path / "manifest.json").read_text())
    assert document["schema_version"] == 1
    assert set(document["files"]) == {"MODEL_CARD.md"}
    assert all(len(segment["sha256"]) == 64 for segment in document["segments"].values())

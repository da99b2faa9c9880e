"""Writing a bundle again with some parts changed: the rest stays, and nothing changes where the parts do not fit."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny_bundle import make_tiny_bundle, tiny_segments

from anydepth_perception.bundle import Bundle, BundleError, rewrite_bundle
from anydepth_perception.bundle.plain_run import reference_by_onnxruntime, smooth_noise
from anydepth_perception.bundle.write import read_document

NOTE = "notes/made_by_hand.txt"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with everything that one can have, alone in its folder."""
    (tmp_path / "bundles").mkdir()
    bundle = make_tiny_bundle(tmp_path / "bundles" / "tiny.anydepth")
    reference = reference_by_onnxruntime(bundle, smooth_noise(bundle))
    return rewrite_bundle(bundle, files={NOTE: b"kept"}, reference=reference)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed_files(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def another(segment: str) -> dict[str, onnx.ModelProto]:
    """The segment with other weights."""
    return {segment: tiny_segments(seed=1)[segment]}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, set()),
        ({"manifest": {"name": "other"}}, {"manifest.json"}),
        ({"files": {"MODEL_CARD.md": b"# Other"}}, {"MODEL_CARD.md", "manifest.json"}),
        ({"files": {NOTE: None}}, {NOTE, "manifest.json"}),
        ({"files": {"weights.safetensors": b"w"}}, {"weights.safetensors", "manifest.json"}),
        ({"files": {"never there": None}}, set()),
        ({"segments": another("p3.full")}, {"segments/p3.full.onnx", "reference.npz", "manifest.json"}),
    ],
    ids=["nothing", "a key", "a file", "a file less", "a file more", "no file", "a segment"],
)
def test_only_what_is_named_changes(bundle: Bundle, parts: dict[str, Any], expected: set[str]) -> None:
    before = contents(bundle.path)
    rewrite_bundle(bundle, **parts)
    assert changed_files(before, contents(bundle.path)) == expected


def test_a_key_of_the_manifest_is_replaced_whole_and_the_others_stay(bundle: Bundle) -> None:
    before = read_document(bundle)
    after = read_document(rewrite_bundle(bundle, manifest={"provenance": {"seed": 1}}))
    assert after == before | {"provenance": {"seed": 1}}


def test_a_rewritten_bundle_is_verified(bundle: Bundle) -> None:
    written = rewrite_bundle(Bundle.load(bundle.path, verify=False), files={"more.txt": b"more"})
    assert written.is_verified
    assert written.read_file("more.txt", written.manifest.files["more.txt"]) == b"more"


def test_references_stay_with_their_segments(bundle: Bundle) -> None:
    assert rewrite_bundle(bundle, manifest={"name": "other"}).read_reference() is not None


def test_references_of_other_segments_are_left_out(bundle: Bundle) -> None:
    assert rewrite_bundle(bundle, segments=another("p3.full")).read_reference() is None


def test_another_folder_gets_the_copy_and_the_bundle_stays(bundle: Bundle, tmp_path: Path) -> None:
    before = contents(bundle.path)
    written = rewrite_bundle(bundle, tmp_path / "new" / "copy.anydepth", manifest={"name": "copy"})
    assert (written.name, written.path) == ("copy", tmp_path / "new" / "copy.anydepth")
    assert contents(bundle.path) == before


def test_nothing_is_left_beside_the_bundle_and_all_may_read_it(bundle: Bundle) -> None:
    rewrite_bundle(bundle, manifest={"name": "other"})
    assert [path.name for path in bundle.path.parent.iterdir()] == ["tiny.anydepth"]
    assert stat.S_IMODE(bundle.path.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"manifest": {"class_names": ["one"]}}, "for 1 class_names"),
        ({"manifest": {"files": {}}}, r"follow from the other parts are given: \['files'\]"),
        ({"segments": another("stem") | {"neck": tiny_segments()["stem"]}}, r"does not have: \['neck'\]"),
        ({"segments": {"stem": tiny_segments(32)["stem"]}}, "reads"),
        ({"files": {"../outside": b""}}, "not a plain path"),
        ({"files": {"manifest.json": b"{}"}}, "SHA-256"),
    ],
    ids=["a key", "a sum", "an unknown segment", "a segment", "a file outside", "the manifest as a file"],
)
def test_a_part_that_does_not_fit_is_refused_and_nothing_changes(
    bundle: Bundle, parts: dict[str, Any], reason: str
) -> None:
    before = contents(bundle.path)
    with pytest.raises(BundleError, match=reason):
        rewrite_bundle(bundle, **parts)
    assert contents(bundle.path) == before
    assert [path.name for path in bundle.path.parent.iterdir()] == ["tiny.anydepth"]


def test_a_damaged_bundle_is_not_written_again(bundle: Bundle, tmp_path: Path) -> None:
    segment = bundle.path / "segments" / "p3.full.onnx"
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{segment}: SHA-256"):
        rewrite_bundle(bundle, tmp_path / "copy.anydepth")
    assert not (tmp_path / "copy.anydepth").exists()


def test_a_bundle_that_was_changed_since_it_was_loaded_is_not_written_again(bundle: Bundle) -> None:
    rewrite_bundle(bundle, manifest={"name": "other"})
    with pytest.raises(BundleError, match="was changed since it was loaded"):
        rewrite_bundle(bundle, files={"MODEL_CARD.md": b"of the old one"})


def linked_files(source: Path, folder: Path) -> None:
    """As `colcon build --symlink-install` does it: every file is a link."""
    for path in source.rglob("*"):
        if path.is_file():
            link = folder / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def linked_folder(source: Path, folder: Path) -> None:
    folder.symlink_to(source)


@pytest.mark.parametrize("install", [linked_files, linked_folder])
def test_symbolic_links_are_not_written_through(
    bundle: Bundle, tmp_path: Path, install: Callable[[Path, Path], None]
) -> None:
    before = contents(bundle.path)
    folder = tmp_path / "install" / "tiny.anydepth"
    folder.parent.mkdir()
    install(bundle.path, folder)
    parts = {"manifest": {"name": "other"}, "files": {"MODEL_CARD.md": b"# Other"}, "segments": another("p3.full")}
    rewrite_bundle(Bundle.load(folder), **parts)
    assert contents(bundle.path) == before
    assert Bundle.load(folder).name == "other"
    assert not any(path.is_symlink() for path in (folder, *folder.rglob("*")))
    assert [path.name for path in folder.parent.iterdir()] == ["tiny.anydepth"]


def test_files_that_may_only_be_read_can_be_replaced(bundle: Bundle) -> None:
    for path in bundle.path.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    rewrite_bundle(bundle, files={"MODEL_CARD.md": b"# Other"})
    assert all(path.stat().st_mode & stat.S_IWUSR for path in bundle.path.rglob("*") if path.is_file())


def test_folders_that_may_only_be_read_can_be_written_again_elsewhere(bundle: Bundle, tmp_path: Path) -> None:
    folders = (bundle.path, bundle.path / "segments")
    for path in folders:
        path.chmod(0o555)
    try:
        copy = rewrite_bundle(bundle, tmp_path / "copy.anydepth", segments=another("p3.full")).path
    finally:
        for path in folders:
            path.chmod(0o755)
    # The modes say it also to root, whom no mode keeps from writing.
    assert all(path.stat().st_mode & stat.S_IWUSR for path in (copy, *copy.rglob("*")))


def test_writing_again_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    parts = {"segments": another("head"), "manifest": {"name": "other"}}
    first, second = (rewrite_bundle(bundle, tmp_path / name, **parts) for name in ("a", "b"))
    assert first.fingerprint == second.fingerprint
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["name"] == "other"


def test_a_bundle_can_be_written_where_another_one_is(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "older.anydepth")
    written = rewrite_bundle(bundle, tmp_path / "older.anydepth", manifest={"name": "newer"})
    assert Bundle.load(tmp_path / "older.anydepth").fingerprint == written.fingerprint

"""Writes a bundle: segments and files with their sums, checked before it replaces what is there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from anydepth_perception.bundle.bundle import MANIFEST_FILE, Bundle
from anydepth_perception.bundle.compose import value_specs
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.fields import Fields, relative_file
from anydepth_perception.bundle.manifest import SCHEMA_VERSION, TensorSpec
from anydepth_perception.bundle.reference import REFERENCE_FILE, Reference, encode_reference

_DERIVED = {"schema_version", "segments", "files", "reference"}


def write_bundle(
    path: str | Path,
    manifest: Mapping[str, Any],
    segments: Mapping[str, onnx.ModelProto],
    files: Mapping[str, bytes] | None = None,
    reference: Reference | None = None,
) -> Bundle:
    """Writes the bundle folder `path` and returns it loaded and verified.

    `manifest` is the manifest without sums: its `segments` gives per segment at least `gflops`. This function
    adds `file`, `sha256`, and the `inputs` and `outputs` as the ONNX graph has them, the sums of `files`, and
    the entry `reference`.
    The folder is written aside and takes the place of an older one only when it loads.

    Args:
        path: the folder to write, usually `NAME.anydepth`.
        manifest: the keys of the manifest, as documented in the format.
        segments: ONNX model of every segment, by its name in the manifest.
        files: contents of further files by name (weights.safetensors, MODEL_CARD.md).
        reference: outputs to hold engines against.

    Raises:
        BundleError: the parts do not make a valid bundle.
    """
    target = Path(path)
    listed = manifest.get("segments", {})
    if set(listed) != set(segments):
        raise BundleError(f"{target}: segments listed and given differ: {sorted(set(listed) ^ set(segments))}")
    with _written_aside(target) as aside:
        document = dict(manifest)
        document["schema_version"] = SCHEMA_VERSION
        document["segments"] = {
            name: {**listed[name], **_write_segment(aside, f"segments/{name}.onnx", model)}
            for name, model in segments.items()
        }
        document["files"] = {name: _write_file(aside, name, data) for name, data in (files or {}).items()}
        document.pop("reference", None)
        if reference is not None:
            _write_reference(aside, document, reference)
        _write_manifest(aside, document)
    return Bundle.load(target)


def rewrite_bundle(
    bundle: Bundle,
    path: str | Path | None = None,
    *,
    manifest: Mapping[str, Any] | None = None,
    segments: Mapping[str, onnx.ModelProto] | None = None,
    files: Mapping[str, bytes | None] | None = None,
    reference: Reference | None = None,
) -> Bundle:
    """Writes a bundle again with some of its parts changed, and returns it loaded and verified.

    All that is not named stays byte for byte. As in `write_bundle`, the folder is written aside and takes the place of
    an older one only when it loads; where `bundle` is made of symbolic links, they are not written through.

    Args:
        bundle: what to write again; it must be on disk as it was when it was loaded.
        path: the folder to write; that of `bundle` if None.
        manifest: keys of the manifest with their new values, each whole. `segments`, `files` and `reference` follow
            from the other arguments.
        segments: other ONNX models, by the names of segments that the bundle has. Their GFLOPs stay.
        files: new contents by name; None leaves a file out.
        reference: other reference outputs. If None, the old ones stay, unless `segments` changes what they are of:
            then the bundle has none any more.

    Raises:
        BundleError: the bundle is damaged or was changed meanwhile, or the parts do not fit; nothing is written then.
        OSError: the folder cannot be written.
    """
    manifest, segments, files = manifest or {}, segments or {}, files or {}
    source = Bundle.load(bundle.path)
    if source.fingerprint != bundle.fingerprint:
        raise BundleError(f"{bundle.path}: was changed since it was loaded; what was to be written is of the old one")
    if derived := sorted(_DERIVED.intersection(manifest)):
        raise BundleError(f"{bundle.path}: keys of the manifest that follow from the other parts are given: {derived}")
    if unknown := sorted(set(segments).difference(source.manifest.segments)):
        raise BundleError(f"{bundle.path}: segments are given that the bundle does not have: {unknown}")
    with _written_aside(bundle.path if path is None else Path(path)) as aside:
        # Contents alone: what a read-only installation forbids is of no concern to the copy.
        shutil.copytree(source.path, aside, copy_function=shutil.copyfile, dirs_exist_ok=True)
        for folder, _, _ in os.walk(aside):
            os.chmod(folder, 0o755)
        document = read_document(source) | dict(manifest)
        for name, model in segments.items():
            entry = document["segments"][name]
            entry |= _write_segment(aside, entry["file"], model)
        if source.manifest.reference is not None and (segments or reference is not None):
            del document["reference"]
            _remove_file(aside, document, source.manifest.reference.file)
        for name, data in files.items():
            if data is None:
                _remove_file(aside, document, name)
            else:
                document["files"][name] = _write_file(aside, name, data)
        if reference is not None:
            _write_reference(aside, document, reference)
        _write_manifest(aside, document)
    return Bundle.load(bundle.path if path is None else path)


def read_document(bundle: Bundle) -> dict[str, Any]:
    """The JSON of the manifest as it is on disk, with what is there beyond the schema, to write parts of it again."""
    document: dict[str, Any] = json.loads((bundle.path / MANIFEST_FILE).read_text(encoding="utf-8"))
    return document


@contextlib.contextmanager
def _written_aside(target: Path) -> Iterator[Path]:
    """A new folder beside `target` to write a bundle into; afterwards it takes its place, if it loads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield aside
        written = Bundle.load(aside)
        for config in (written.base, written.full):
            written.compose(config)
        written.read_reference()
        aside.chmod(0o755)
        _replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_reference(folder: Path, document: dict[str, Any], reference: Reference) -> None:
    sha256 = _write_file(folder, REFERENCE_FILE, encode_reference(reference))
    document["files"][REFERENCE_FILE] = sha256
    document["reference"] = {"file": REFERENCE_FILE, "precision": reference.precision}


def _write_manifest(folder: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=1, allow_nan=False)
    (folder / MANIFEST_FILE).write_text(f"{text}\n", encoding="utf-8")


def _write_segment(folder: Path, file: str, model: onnx.ModelProto) -> dict[str, Any]:
    initialisers = {tensor.name for tensor in model.graph.initializer}
    return {
        "file": file,
        "sha256": _write_file(folder, file, model.SerializeToString(deterministic=True)),
        "inputs": _describe(value_specs([info for info in model.graph.input if info.name not in initialisers])),
        "outputs": _describe(value_specs(model.graph.output)),
    }


def _describe(specs: tuple[TensorSpec, ...]) -> dict[str, dict[str, Any]]:
    return {spec.name: {"shape": list(spec.shape), "dtype": spec.dtype} for spec in specs}


def _write_file(folder: Path, name: str, data: bytes) -> str:
    relative_file(name, Fields({}, str(folder / MANIFEST_FILE), "files"))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _remove_file(folder: Path, document: dict[str, Any], name: str) -> None:
    if document["files"].pop(name, None) is not None:
        (folder / name).unlink()


def _replace(source: Path, target: Path) -> None:
    """Puts the folder `source` in the place of `target`; a reader sees one of them, or for an instant none."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if os.path.lexists(target):
        target.rename(old)
    try:
        source.rename(target)
    except OSError:
        if os.path.lexists(old):
            old.rename(target)
        raise
    if old.is_symlink():  # to the folder of another place, which stays as it is
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)

"""Writes a bundle: segments and files with their sums, checked before it replaces what is there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from anydepth_perception.bundle.bundle import MANIFEST_FILE, Bundle
from anydepth_perception.bundle.compose import value_specs
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.fields import Fields, relative_file
from anydepth_perception.bundle.manifest import SCHEMA_VERSION, TensorSpec
from anydepth_perception.bundle.reference import REFERENCE_FILE, Reference, encode_reference


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
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        document = dict(manifest)
        document["schema_version"] = SCHEMA_VERSION
        document["segments"] = {
            name: {**listed[name], **_write_segment(aside, name, model)} for name, model in segments.items()
        }
        document["files"] = {name: _write_file(aside, name, data) for name, data in (files or {}).items()}
        document.pop("reference", None)
        if reference is not None:
            _write_reference(aside, document, reference)
        _write_manifest(aside, document)
        written = Bundle.load(aside)
        for config in (written.base, written.full):
            written.compose(config)
        written.read_reference()
        aside.chmod(0o755)
        _replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Bundle.load(target)


def write_reference(bundle: Bundle, reference: Reference) -> Bundle:
    """Gives a bundle on disk other reference outputs and returns it loaded; its segments stay as they are.

    As in `write_bundle`, the folder is written aside and takes the place of the old one only when it loads.

    Raises:
        BundleError: the bundle is damaged, or the reference does not fit it.
        OSError: the folder cannot be written.
    """
    target = bundle.path
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        shutil.copytree(target, aside, dirs_exist_ok=True)
        document = json.loads((aside / MANIFEST_FILE).read_text(encoding="utf-8"))
        _write_reference(aside, document, reference)
        _write_manifest(aside, document)
        Bundle.load(aside).read_reference()
        aside.chmod(0o755)
        _replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Bundle.load(target)


def _write_reference(folder: Path, document: dict[str, Any], reference: Reference) -> None:
    sha256 = _write_file(folder, REFERENCE_FILE, encode_reference(reference))
    document["files"] = {**document["files"], REFERENCE_FILE: sha256}
    document["reference"] = {"file": REFERENCE_FILE, "precision": reference.precision}


def _write_manifest(folder: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=1, allow_nan=False)
    (folder / MANIFEST_FILE).write_text(f"{text}\n", encoding="utf-8")


def _write_segment(folder: Path, name: str, model: onnx.ModelProto) -> dict[str, Any]:
    initialisers = {tensor.name for tensor in model.graph.initializer}
    file = f"segments/{name}.onnx"
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


def _replace(source: Path, target: Path) -> None:
    """Puts the folder `source` in the place of `target`; a reader sees one of them, or for an instant none."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        target.rename(old)
    try:
        source.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)

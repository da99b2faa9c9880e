"""A model bundle: loads and checks the folder, composes its segments, and knows what each depth costs and scores."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from anydepth_perception.bundle.compose import concatenate
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.external_data import external_tensor
from anydepth_perception.bundle.manifest import Manifest, Segment, TensorSpec
from anydepth_perception.bundle.manifest_parser import parse_manifest
from anydepth_perception.bundle.reference import Reference, decode_reference
from anydepth_perception.depth.accuracy import AccuracyModel
from anydepth_perception.depth.ladder import default_configs
from anydepth_perception.depth.space import DepthConfig, DepthSpace

MANIFEST_FILE = "manifest.json"
_MAX_MANIFEST_BYTES = 16 << 20
_MAX_FILE_BYTES = (2 << 30) - 1
"""Of a segment: what a protocol buffer can be at most."""


class Bundle:
    """A bundle folder whose manifest and sums have been checked; segments are read when they are composed."""

    def __init__(self, path: Path, manifest: Manifest, fingerprint: str, *, verify: bool = True) -> None:
        """Use `Bundle.load`. `fingerprint` is the SHA-256 of the manifest, which holds the sums of all else."""
        self.path = path
        self.manifest = manifest
        self.fingerprint = fingerprint
        self._verify = verify
        self._reference: Reference | None = None
        table = manifest.accuracy
        known = {config: entry.average_precision for config, entry in table.configurations.items()}
        self._accuracy = AccuracyModel(manifest.space, manifest.gflops, known, table.estimate)

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> Bundle:
        """Loads the bundle in the folder `path`.

        Args:
            path: the folder, usually `NAME.anydepth`.
            verify: whether the SHA-256 sums of all files are checked, now and whenever a file is read.

        Raises:
            BundleError: a file is missing or unreadable, the manifest is not valid, or a sum does not match.
        """
        folder = Path(path)
        if not os.path.isdir(folder):
            raise BundleError(f"{folder}: no such folder; a bundle is a folder NAME.anydepth with {MANIFEST_FILE}")
        manifest_path = folder / MANIFEST_FILE
        data = _read(manifest_path, _MAX_MANIFEST_BYTES)
        try:
            document = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{manifest_path}: not valid JSON, perhaps truncated: {error}") from error
        manifest = parse_manifest(document, str(manifest_path))
        bundle = cls(folder, manifest, hashlib.sha256(data).hexdigest(), verify=verify)
        if verify:
            for segment in manifest.segments.values():
                bundle.read_file(segment.file, segment.sha256)
            for name, sha256 in manifest.files.items():
                bundle.read_file(name, sha256)
        else:
            for segment in manifest.segments.values():
                _check_file(folder / segment.file)
        return bundle

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, {self.manifest.model}, {len(self.class_names)} classes, {str(self.path)!r})"

    @property
    def name(self) -> str:
        """Name of the bundle, as `aisle-yolo-t`."""
        return self.manifest.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by class id."""
        return self.manifest.class_names

    @property
    def space(self) -> DepthSpace:
        """What there is to choose from."""
        return self.manifest.space

    @property
    def full(self) -> DepthConfig:
        """The super-net's configuration."""
        return self.space.full

    @property
    def base(self) -> DepthConfig:
        """The base-net's configuration."""
        return self.space.base

    def segments_for(self, config: DepthConfig) -> list[Segment]:
        """The segments that run for `config`, in execution order."""
        return [self.manifest.segments[name] for name in self.manifest.segment_names(config)]

    def compose(self, config: DepthConfig) -> onnx.ModelProto:
        """One ONNX graph for `config`: reads the image, writes boxes and logits, holds its weights.

        Raises:
            BundleError: a segment's file is missing, damaged or disagrees with the manifest.
        """
        outputs = self.manifest.outputs
        return self.compose_segments(self.segments_for(config), (outputs.boxes, outputs.logits), str(config))

    def compose_segments(self, segments: list[Segment], outputs: tuple[str, ...], name: str) -> onnx.ModelProto:
        """One ONNX graph of consecutive `segments` that writes the tensors `outputs`.

        Its inputs are the tensors that the segments read and do not write themselves.
        """
        models = [(segment, self.read_segment(segment)) for segment in segments]
        return concatenate(models, outputs, name, str(self.path))

    def read_segment(self, segment: Segment) -> onnx.ModelProto:
        """Reads and parses a segment's ONNX file, and checks its sum again."""
        path = self.path / segment.file
        data = self.read_file(segment.file, segment.sha256)
        try:
            model = onnx.load_model_from_string(data)
        except (DecodeError, ValueError) as error:
            raise BundleError(f"{path}: not a valid ONNX model: {error}") from error
        external = external_tensor(model)
        if external is not None:
            raise BundleError(
                f"{path}: the tensor {external.name[:100]!r} lies in another file, which a segment's may not: engines "
                f"would read whatever it names"
            )
        return model

    def read_file(self, name: str, sha256: str) -> bytes:
        """Reads a file of the bundle and, where this bundle is verified, checks it against `sha256`."""
        data = _read(self.path / name)
        if self._verify:
            actual = hashlib.sha256(data).hexdigest()
            if actual != sha256:
                raise BundleError(
                    f"{self.path / name}: SHA-256 is {actual}, {MANIFEST_FILE} says {sha256}; "
                    f"the file is damaged or was changed, copy the bundle again"
                )
        return data

    @property
    def is_verified(self) -> bool:
        """Whether the sums in the manifest are known to be those of the files."""
        return self._verify

    def read_reference(self) -> Reference | None:
        """The reference outputs, or None where the bundle has none; kept in memory once read.

        Raises:
            BundleError: the file is missing, damaged, or does not fit this bundle.
        """
        spec = self.manifest.reference
        if spec is not None and self._reference is None:
            written = {tensor.name: tensor for segment in self.segments_for(self.full) for tensor in segment.outputs}
            logits = written[self.manifest.outputs.logits]
            self._reference = decode_reference(
                self.read_file(spec.file, self.manifest.files[spec.file]),
                str(self.path / spec.file),
                image_shape=self.input_spec().shape,
                num_rows=logits.shape[1],
                num_classes=logits.shape[2],
                space=self.space,
                precision=spec.precision,
            )
        return self._reference

    def input_spec(self) -> TensorSpec:
        """The network's input tensor, uint8 [1, height, width, 3]."""
        source = self.manifest.input
        return TensorSpec(source.name, (1, source.height, source.width, 3), "uint8")

    def gflops(self, config: DepthConfig) -> float:
        """Cost of one frame at `config`, in GFLOPs."""
        return self.space.total(self.manifest.gflops, config)

    @property
    def has_accuracy(self) -> bool:
        """Whether the bundle has an accuracy table; without one, `average_precision` only ranks."""
        return bool(self.manifest.accuracy.configurations)

    def is_measured(self, config: DepthConfig) -> bool:
        """Whether the AP of `config` was measured, rather than estimated."""
        entry = self.manifest.accuracy.configurations.get(config)
        return entry is not None and entry.measured

    def average_precision(self, config: DepthConfig) -> float:
        """AP of `config` in [0, 1]: from the accuracy table where it is there, else the estimate of `AccuracyModel`."""
        return self._accuracy(config)

    def default_configs(self, count: int = 8) -> tuple[DepthConfig, ...]:
        """Configurations worth compiling before any time is known, base to full; see `depth.ladder`."""
        return default_configs(self.space, self.manifest.gflops, self._accuracy, count)


def _check_file(path: Path) -> None:
    # os.path answers False, where pathlib raises, for names that no file can have; and a pipe would never end.
    if not os.path.isfile(path):
        raise BundleError(f"{path}: missing" if not os.path.lexists(path) else f"{path}: not a file that can be read")


def _read(path: Path, max_bytes: int = _MAX_FILE_BYTES) -> bytes:
    """The contents of a file, whose size is looked at before anything is read. Raises: BundleError."""
    _check_file(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise BundleError(f"{path}: {size} bytes, accepted are at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error

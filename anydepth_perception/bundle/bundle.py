"""A model bundle: loads and checks the folder, composes its segments, and knows what each depth costs and scores."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from anydepth_perception.bundle.compose import concatenate
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.manifest import Manifest, Segment, TensorSpec, parse_manifest
from anydepth_perception.bundle.reference import Reference, decode_reference
from anydepth_perception.depth.config import STAGES, DepthConfig

MANIFEST_FILE = "manifest.json"
_MAX_MANIFEST_BYTES = 16 << 20


class Bundle:
    """A bundle folder whose manifest and sums have been checked; segments are read when they are composed."""

    def __init__(self, path: Path, manifest: Manifest, fingerprint: str, *, verify: bool = True) -> None:
        """Use `Bundle.load`. `fingerprint` is the SHA-256 of the manifest, which holds the sums of all else."""
        self.path = path
        self.manifest = manifest
        self.fingerprint = fingerprint
        self._verify = verify
        self._reference: Reference | None = None
        self._gflops_base = 0.0
        self._gflops_base = self.gflops(self.base)
        self._gflops_full = self.gflops(self.full)
        self._stage_gains = self._measured_stage_gains()

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
        data = _read(manifest_path)
        if len(data) > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{manifest_path}: {len(data)} bytes, a manifest has at most {_MAX_MANIFEST_BYTES}")
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

    @property
    def name(self) -> str:
        """Name of the bundle, as `aisle-yolo-t`."""
        return self.manifest.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by class id."""
        return self.manifest.class_names

    @property
    def num_exits(self) -> int:
        """Number of decoder exits, 0 for a detector without a decoder."""
        return self.manifest.num_exits

    @property
    def full(self) -> DepthConfig:
        """The super-net's configuration."""
        return DepthConfig.full(self.num_exits)

    @property
    def base(self) -> DepthConfig:
        """The base-net's configuration."""
        return DepthConfig.base(self.num_exits)

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
            return onnx.load_model_from_string(data)
        except (DecodeError, ValueError) as error:
            raise BundleError(f"{path}: not a valid ONNX model: {error}") from error

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
                num_exits=self.num_exits,
                precision=spec.precision,
            )
        return self._reference

    def input_spec(self) -> TensorSpec:
        """The network's input tensor, uint8 [1, height, width, 3]."""
        source = self.manifest.input
        return TensorSpec(source.name, (1, source.height, source.width, 3), "uint8")

    def gflops(self, config: DepthConfig) -> float:
        """Cost of one frame at `config`, in GFLOPs."""
        # fsum: mixtures of the same cost compare equal, in whatever order the cost adds up.
        return math.fsum(segment.gflops for segment in self.segments_for(config))

    @property
    def has_accuracy(self) -> bool:
        """Whether the bundle has an accuracy table; without one, `average_precision` only ranks."""
        return bool(self.manifest.accuracy.configurations)

    def is_measured(self, config: DepthConfig) -> bool:
        """Whether the AP of `config` was measured, rather than estimated."""
        entry = self.manifest.accuracy.configurations.get(config)
        return entry is not None and entry.measured

    def average_precision(self, config: DepthConfig) -> float:
        """AP of `config` in [0, 1]: from the accuracy table where it is there, else an estimate.

        The estimate is the one that was fitted to the measured configurations, where the manifest has one.
        Otherwise it adds the gains of single stages to base, scaled so that full is met, where the table has a
        single for each stage; and without those it goes linearly with GFLOPs from base to full. A bundle without
        a table ranks by GFLOPs alone: 0 at no cost, 1 at full.
        """
        table = self.manifest.accuracy.configurations
        if config in table:
            return table[config].average_precision
        if self.manifest.accuracy.estimate is not None:
            return self.manifest.accuracy.estimate(config)
        if not table:
            return self.gflops(config) / self._gflops_full if self._gflops_full else 0.0
        base, full = table[self.base].average_precision, table[self.full].average_precision
        if self._stage_gains is not None and config.exit == self.base.exit:
            gain = math.fsum(g for g, is_full in zip(self._stage_gains, config.full_paths, strict=True) if is_full)
            return base + gain
        span = self._gflops_full - self._gflops_base
        share = (self.gflops(config) - self._gflops_base) / span if span else 0.0
        return min(1.0, max(0.0, base + share * (full - base)))

    def _measured_stage_gains(self) -> tuple[float, ...] | None:
        """Gain in AP of each stage's full path, scaled to add up from base to full; None if a stage has none.

        A stage's gain is what its full path adds to the base-net, or what its essential path takes from the
        super-net, or the mean of both: whichever the table has.
        """
        table = self.manifest.accuracy.configurations
        base, full = table.get(self.base), table.get(DepthConfig(self.full.full_paths, self.base.exit))
        if base is None or full is None:
            return None
        gains = []
        for index in range(len(STAGES)):
            alone = tuple(position == index for position in range(len(STAGES)))
            added = table.get(DepthConfig(alone, self.base.exit))
            taken = table.get(DepthConfig(tuple(not path for path in alone), self.base.exit))
            known = [added.average_precision - base.average_precision] if added else []
            known += [full.average_precision - taken.average_precision] if taken else []
            if not known:
                return None
            # A negative gain is noise of the measurement: a refinement that looks harmful is worth nothing here.
            gains.append(max(0.0, sum(known) / len(known)))
        total = sum(gains)
        if total <= 0.0:
            return None
        scale = max(0.0, full.average_precision - base.average_precision) / total
        return tuple(gain * scale for gain in gains)


def _check_file(path: Path) -> None:
    # os.path answers False, where pathlib raises, for names that no file can have; and a pipe would never end.
    if not os.path.isfile(path):
        raise BundleError(f"{path}: missing" if not os.path.lexists(path) else f"{path}: not a file that can be read")


def _read(path: Path) -> bytes:
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error

"""The model bundle on disk: a manifest and ONNX segments that compose into a detector of any depth."""

from anydepth_perception.bundle.bundle import Bundle
from anydepth_perception.bundle.compose import concatenate
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.locate import find_bundle
from anydepth_perception.bundle.manifest import Manifest, Segment, TensorSpec
from anydepth_perception.bundle.manifest_parser import parse_manifest
from anydepth_perception.bundle.reference import Reference, ReferenceRows, choose_rows
from anydepth_perception.bundle.write import rewrite_bundle, write_bundle

__all__ = [
    "Bundle",
    "BundleError",
    "Manifest",
    "Reference",
    "ReferenceRows",
    "Segment",
    "TensorSpec",
    "choose_rows",
    "concatenate",
    "find_bundle",
    "parse_manifest",
    "rewrite_bundle",
    "write_bundle",
]

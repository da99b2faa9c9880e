"""The model bundle on disk: a manifest and ONNX segments that compose into a detector of any depth."""

from anydepth_perception.bundle.bundle import Bundle
from anydepth_perception.bundle.compose import concatenate
from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.bundle.locate import find_bundle
from anydepth_perception.bundle.manifest import Manifest, Segment, TensorSpec, parse_manifest
from anydepth_perception.bundle.write import write_bundle

__all__ = [
    "Bundle",
    "BundleError",
    "Manifest",
    "Segment",
    "TensorSpec",
    "concatenate",
    "find_bundle",
    "parse_manifest",
    "write_bundle",
]

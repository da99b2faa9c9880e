"""A segment from somebody else: it names no other file, wherever it tries, and is not read before its size is known."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from anydepth_perception.bundle import Bundle, BundleError
from anydepth_perception.bundle.external_data import external_tensor


def elsewhere(name: str = "secret") -> TensorProto:
    """A tensor whose values are those of a file beside the model."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    return tensor


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["inner.c"], value=tensor)


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(elsewhere())


def in_sparse_values(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(values=elsewhere(), dims=[4])


def in_sparse_indices(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(indices=elsewhere(), dims=[4])


def in_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(constant(elsewhere()))


def in_list_of_an_attribute(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Custom")
    node.attribute.append(helper.make_attribute("tables", [elsewhere()]))


def in_branch_of_branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([constant(elsewhere())], "inner", [], [])
    outer = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(helper.make_node("Loop", ["n", "c"], ["z"], body=outer))


def in_function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f").node.append(constant(elsewhere()))


def without_the_flag(model: onnx.ModelProto) -> None:
    tensor = elsewhere()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


PLACES = [
    in_initializer, in_sparse_values, in_sparse_indices, in_constant, in_list_of_an_attribute, in_branch_of_branch,
    in_function, without_the_flag,
]


@pytest.fixture
def bundle_copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy.anydepth"))


def change_segment(bundle: Path, change: Callable[[Path], object]) -> None:
    """Changes the file of the stem, and makes its sum in the manifest right again."""
    document = json.loads((bundle / "manifest.json").read_text())
    entry = document["segments"]["stem"]
    path = bundle / entry["file"]
    change(path)
    if path.stat().st_size < 1 << 20:
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_segment_that_names_another_file_is_refused(
    bundle_copy: Path, place: Callable[[onnx.ModelProto], None]
) -> None:
    def change(path: Path) -> None:
        model = onnx.load(path)
        place(model)
        path.write_bytes(model.SerializeToString())

    change_segment(bundle_copy, change)
    bundle = Bundle.load(bundle_copy)
    with pytest.raises(BundleError, match="'secret' lies in another file"):
        bundle.compose(bundle.base)


def test_the_segments_of_a_bundle_have_no_such_tensor(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    assert all(external_tensor(bundle.read_segment(segment)) is None for segment in bundle.segments_for(bundle.full))


def make_sparse(path: Path) -> None:
    os.truncate(path, 40 << 30)


@pytest.mark.parametrize("verify", [True, False])
def test_a_sparse_segment_of_40_gib_is_refused_unread(bundle_copy: Path, verify: bool) -> None:
    change_segment(bundle_copy, make_sparse)
    started = time.process_time()
    with pytest.raises(BundleError, match="42949672960 bytes, accepted are at most 2147483647"):
        bundle = Bundle.load(bundle_copy, verify=verify)
        bundle.compose(bundle.base)
    assert time.process_time() - started < 1.0


def test_a_sparse_manifest_of_40_gib_is_refused_unread(bundle_copy: Path) -> None:
    make_sparse(bundle_copy / "manifest.json")
    with pytest.raises(BundleError, match="accepted are at most 16777216"):
        Bundle.load(bundle_copy)

"""Loading a bundle: what is in it, and that every damaged one is refused with the file and the reason."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spaces import EIGHT

from anydepth_perception.bundle import Bundle, BundleError, parse_manifest
from anydepth_perception.depth.space import DepthConfig

Document = dict[str, Any]


@pytest.fixture
def bundle_copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may damage."""
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy.anydepth"))


def edit_manifest(path: Path, edit: Callable[[Document], object]) -> None:
    document = json.loads((path / "manifest.json").read_text())
    edit(document)
    (path / "manifest.json").write_text(json.dumps(document))


def test_valid_bundle_shows_what_the_manifest_says(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    assert bundle.name == "tiny"
    assert bundle.class_names == ("person", "crate", "cone")
    assert bundle.space.num_exits == 0
    assert str(bundle.full) == "FFFF.FFFF"
    assert str(bundle.base) == "EEEE.EEEE"
    assert bundle.input_spec().shape == (1, 64, 64, 3)


def test_segments_of_a_mixture_follow_its_paths(tiny_bundle_path: Path) -> None:
    names = [segment.name for segment in Bundle.load(tiny_bundle_path).segments_for(DepthConfig.parse("FEEE.EEEF"))]
    assert names == [
        "stem",
        "p2.full",
        "p3.essential",
        "p4.essential",
        "p5.essential",
        "fpn_p4.essential",
        "fpn_p3.essential",
        "pan_p4.essential",
        "pan_p5.full",
        "head",
    ]


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.anydepth: no such folder"):
        Bundle.load(tmp_path / "none.anydepth")


def test_missing_manifest_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"manifest\.json: missing"):
        Bundle.load(bundle_copy)


def test_truncated_manifest_is_refused(bundle_copy: Path) -> None:
    data = (bundle_copy / "manifest.json").read_bytes()
    (bundle_copy / "manifest.json").write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match=r"manifest\.json: not valid JSON"):
        Bundle.load(bundle_copy)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000], ids=["empty", "not text", "nested deeply"])
def test_manifest_that_is_not_json_is_refused(bundle_copy: Path, data: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(data)
    with pytest.raises(BundleError, match=r"manifest\.json: not valid JSON"):
        Bundle.load(bundle_copy)


def test_other_schema_version_is_refused(bundle_copy: Path) -> None:
    edit_manifest(bundle_copy, lambda document: document.update(schema_version=2))
    with pytest.raises(BundleError, match="schema version 2 is not supported, this release reads 1"):
        Bundle.load(bundle_copy)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
@pytest.mark.parametrize("name", ["segments/p3.full.onnx", "MODEL_CARD.md"])
def test_changed_file_is_refused(bundle_copy: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = bundle_copy / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match=f"{name}: SHA-256 is"):
        Bundle.load(bundle_copy)


@pytest.mark.parametrize("verify", [True, False])
def test_missing_segment_file_is_refused(bundle_copy: Path, verify: bool) -> None:
    (bundle_copy / "segments" / "head.onnx").unlink()
    with pytest.raises(BundleError, match=r"head\.onnx: missing"):
        Bundle.load(bundle_copy, verify=verify)


def test_pipe_in_the_place_of_a_file_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "segments" / "head.onnx").unlink()
    os.mkfifo(bundle_copy / "segments" / "head.onnx")
    with pytest.raises(BundleError, match=r"head\.onnx: not a file that can be read"):
        Bundle.load(bundle_copy)


def test_linked_files_are_read_as_colcon_links_them(bundle_copy: Path, tmp_path: Path) -> None:
    path = bundle_copy / "segments" / "head.onnx"
    path.rename(tmp_path / "elsewhere.onnx")
    path.symlink_to(tmp_path / "elsewhere.onnx")
    assert Bundle.load(bundle_copy).name == "tiny"


def test_segment_changed_after_loading_is_refused_when_read(bundle_copy: Path) -> None:
    bundle = Bundle.load(bundle_copy)
    (bundle_copy / "segments" / "stem.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"stem\.onnx: SHA-256 is"):
        bundle.compose(bundle.full)


def test_unverified_segment_that_is_no_model_is_refused_when_read(bundle_copy: Path) -> None:
    bundle = Bundle.load(bundle_copy, verify=False)
    (bundle_copy / "segments" / "stem.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"stem\.onnx: not a valid ONNX model"):
        bundle.compose(bundle.full)


REQUIRED_KEYS = [
    "schema_version name model family input outputs class_names num_exits pipeline stages exits segments "
    "postprocess accuracy provenance files",
    "input.name input.height input.width input.resize input.pad_value outputs.boxes outputs.logits",
    "postprocess.nms postprocess.iou_threshold accuracy.dataset accuracy.metric accuracy.configurations",
    "stages.p2.full stages.pan_p5.essential segments.head segments.stem.file segments.stem.sha256 segments.stem.gflops",
    "segments.stem.inputs segments.stem.outputs segments.stem.inputs.images.shape segments.stem.inputs.images.dtype",
]


@pytest.mark.parametrize("place", " ".join(REQUIRED_KEYS).split())
def test_missing_key_is_named(tiny_document: Document, place: str) -> None:
    *parents, key = place.split(".")
    target = tiny_document
    for parent in parents:
        target = target[parent]
    del target[key]
    with pytest.raises(BundleError, match=rf"^manifest\.json: .*'{key}'"):
        parse_manifest(tiny_document, "manifest.json")


WRONG_VALUES: list[tuple[str, Any, str]] = [
    ("family", 3, "expected a text"),
    ("class_names", [], "expected a list of texts"),
    ("class_names", ["person", "person", "cone"], "holds a name twice"),
    ("class_names", ["person", "cone"], r"expected float32 \[1, N, 4\] and float32 \[1, N, 2\]"),
    ("num_exits", -1, "a whole number of at least 0"),
    ("num_exits", 2, "holds 'exits' exactly where num_exits is above 0; it is 2"),
    ("pipeline", ["stem", "p2", "head"], "stages names the stage 'p3', which is not an entry of the pipeline"),
    ("input.height", 0, "a whole number of at least 1"),
    ("input.height", True, "a whole number"),
    ("input.height", 128, "is written"),
    ("input.resize", "crop", "expected one of letterbox, stretch"),
    ("input.pad_value", 256, "at most 255"),
    ("postprocess.nms", 1, "true or false"),
    ("postprocess.iou_threshold", 1.5, "a number from 0.0 to 1.0"),
    ("postprocess.iou_threshold", float("nan"), "a number from 0.0 to 1.0"),
    ("segments.head.sha256", "00", "not a SHA-256 sum"),
    ("segments.head.gflops", -1, "a number from 0.0"),
    ("segments.head.gflops", 10**400, "a number from 0.0"),
    ("segments.p2.full.outputs.p2.shape", [1, 8, 16, 17], "not interchangeable"),
    ("segments.p2.full.outputs.p2.shape", [1, 2**20, 2**20], "holds more than"),
    ("segments.p2.full.outputs.p2.dtype", "float64", "expected one of uint8"),
    ("segments.p3.full.inputs", {"p7": {"shape": [1], "dtype": "float32"}}, "reads 'p7', which nothing before writes"),
    ("segments.p3.full.inputs.p2.dtype", "float16", "is written"),
    ("stages.p2.full", "p9.full", "segment 'p9.full' is used but not listed"),
    ("stages.p7", {}, "stages names the stage 'p7', which is not an entry of the pipeline"),
    ("pipeline", ["stem", "p2", "p2"], "holds an entry twice"),
    ("outputs.boxes", "frames", "output 'frames' is written by no segment"),
    ("accuracy.configurations", {"FFFF.FFFF": {"AP": 0.5, "measured": True}}, "has no entry for base"),
    ("accuracy.configurations", {"FFXX.FFFF": {"AP": 0.5, "measured": True}}, "not a depth configuration"),
    ("accuracy.configurations", {"FFFF.FFFF": {"AP": 50.0, "measured": True}}, "a number from 0.0 to 1.0"),
]


@pytest.mark.parametrize(("place", "value", "reason"), WRONG_VALUES)
def test_wrong_value_is_refused_with_the_reason(tiny_document: Document, place: str, value: Any, reason: str) -> None:
    set_at(tiny_document, place, value)
    with pytest.raises(BundleError, match=reason) as caught:
        parse_manifest(tiny_document, "manifest.json")
    assert str(caught.value).startswith("manifest.json: ")


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "segments/../../x", "a\\b", "C:x", "..", "x\0.onnx"])
def test_file_outside_the_bundle_is_refused(tiny_document: Document, file: str) -> None:
    tiny_document["segments"]["stem"]["file"] = file
    with pytest.raises(BundleError, match=r"not a plain path inside the bundle|expected a text"):
        parse_manifest(tiny_document, "manifest.json")


def test_tensor_written_by_two_stages_is_refused(tiny_document: Document) -> None:
    for path in ("essential", "full"):
        outputs = tiny_document["segments"][f"p3.{path}"]["outputs"]
        outputs["p2"] = {"shape": [1, 8, 16, 16], "dtype": "float32"}
    with pytest.raises(BundleError, match=r"tensor 'p2' is written twice, again by segment 'p3\.essential'"):
        parse_manifest(tiny_document, "manifest.json")


@pytest.fixture
def tiny_document(tiny_bundle_path: Path) -> Document:
    """The tiny bundle's manifest as parsed JSON, for one test to change."""
    document: Document = json.loads((tiny_bundle_path / "manifest.json").read_text())
    return document


def set_at(document: Document, place: str, value: Any) -> None:
    """Sets the value at a dotted place; names of segments hold dots themselves."""
    target: Any = document
    keys = place.split(".")
    while len(keys) > 1:
        count = next((n for n in (2, 1) if ".".join(keys[:n]) in target and n < len(keys)), 1)
        target = target[".".join(keys[:count])]
        keys = keys[count:]
    target[keys[0]] = value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values inside a JSON document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_manifest_is_read_or_refused_but_never_crashes(tiny_document: Document, data: st.DataObject) -> None:
    document = copy.deepcopy(tiny_document)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, key = data.draw(st.sampled_from(places(document)))
        target = document
        for parent in parents:
            target = target[parent]
        if data.draw(st.booleans()):
            target[key] = data.draw(JUNK)
        else:
            del target[key]
    try:
        manifest = parse_manifest(document, "manifest.json")
    except BundleError as error:
        assert str(error).startswith("manifest.json: ")
    else:
        assert manifest.segment_names(EIGHT.full)


@pytest.mark.parametrize("name", ["x" * 100_000, "a\nb\x1b[31m", "\ud800", "\u202e"])
def test_message_about_strange_names_is_one_line_that_can_be_shown(bundle_copy: Path, name: str) -> None:
    edit_manifest(bundle_copy, lambda document: document["segments"]["stem"].update(file=name))
    with pytest.raises(BundleError) as caught:
        Bundle.load(bundle_copy)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1300
    assert message.startswith(str(bundle_copy))
    assert message.endswith("missing")

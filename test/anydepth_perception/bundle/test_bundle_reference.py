"""Reference outputs of a bundle: stored beside the segments, and believed only where they fit the manifest."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from spaces import EIGHT

from anydepth_perception.bundle import Bundle, BundleError, Reference, ReferenceRows, choose_rows, write_reference
from anydepth_perception.bundle.bundle import MANIFEST_FILE
from anydepth_perception.bundle.reference import REFERENCE_FILE, decode_reference, encode_reference

IMAGE_SHAPE, NUM_ROWS, NUM_CLASSES = (1, 64, 64, 3), 336, 3


def raw_outputs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    boxes, logits = (rng.normal(size=(1, NUM_ROWS, width)).astype(np.float32) for width in (4, NUM_CLASSES))
    return boxes, logits


def sample_reference() -> Reference:
    image = np.random.default_rng(0).integers(0, 256, IMAGE_SHAPE, np.uint8)
    configs = (EIGHT.full, EIGHT.base)
    return Reference(image, {config: choose_rows(*raw_outputs(seed)) for seed, config in enumerate(configs)})


def decode(data: bytes) -> Reference:
    return decode_reference(
        data,
        "some/reference.npz",
        image_shape=IMAGE_SHAPE,
        num_rows=NUM_ROWS,
        num_classes=NUM_CLASSES,
        space=EIGHT,
        precision="float32",
    )


def repacked(**changed: bytes) -> bytes:
    """The sample's file with other contents of the members whose names begin so; an unknown one is added."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(encode_reference(sample_reference()))) as source, zipfile.ZipFile(
        packed, "w", zipfile.ZIP_DEFLATED
    ) as target:
        for name in source.namelist():
            target.writestr(name, changed.pop(name.removesuffix(".npy").replace(".", "_"), source.read(name)))
        for name, data in changed.items():
            target.writestr(f"{name}.npy", data)
    return packed.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_references_come_back_as_they_were_written() -> None:
    sample = sample_reference()
    found = decode(encode_reference(sample))
    np.testing.assert_array_equal(found.image, sample.image)
    assert list(found.rows) == list(sample.rows)
    for config, rows in sample.rows.items():
        for part in ("indices", "boxes", "logits"):
            np.testing.assert_array_equal(getattr(found.rows[config], part), getattr(rows, part))


def test_equal_references_give_equal_files() -> None:
    assert encode_reference(sample_reference()) == encode_reference(sample_reference())


def test_the_best_rows_are_among_those_chosen() -> None:
    boxes, logits = raw_outputs()
    chosen = choose_rows(boxes, logits)
    assert set(np.argsort(-logits[0].max(axis=1))[:50]) <= set(chosen.indices.tolist())
    np.testing.assert_array_equal(chosen.boxes, boxes[0][chosen.indices])


def test_rows_of_all_levels_are_chosen_though_the_finest_has_the_best() -> None:
    boxes, logits = raw_outputs()
    logits[:, : NUM_ROWS * 3 // 4] += 100
    assert (choose_rows(boxes, logits).indices >= NUM_ROWS * 15 // 16).sum() >= 3


def huge_array() -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    return header.getvalue() + bytes(64)


BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no archive": (lambda: b"nothing", "not readable references"),
    "truncated": (lambda: encode_reference(sample_reference())[:-200], "not readable references"),
    "a pickle": (lambda: repacked(image=npy(np.array([{}], object))), "not readable references"),
    "no array": (lambda: repacked(image=b"\x93NUMPY"), "not readable references"),
    "a huge shape": (lambda: repacked(image=huge_array()), "not readable references"),
    "much to unpack": (lambda: repacked(image=bytes(100 << 20)), "unpacks to .* at most"),
    "another image": (lambda: repacked(image=npy(np.zeros((1, 64, 32, 3), np.uint8))), r"is uint8\[1, 64, 32, 3\]"),
    "no image": (lambda: repacked().replace(b"image.npy", b"other.npy"), "image is missing"),
    "another configuration": (lambda: repacked(unknown=npy(np.zeros(3, np.float32))), "''"),
    "rows that do not exist": (
        lambda: repacked(FFFF_FFFF_indices=npy(np.arange(NUM_ROWS, NUM_ROWS + 3, dtype=np.int32))),
        f"ascending int32.* below {NUM_ROWS}",
    ),
    "other classes": (lambda: repacked(FFFF_FFFF_logits=npy(np.zeros((3, 7), np.float32))), r"logits float32\[3, 7\]"),
    "no number": (lambda: repacked(EEEE_EEEE_boxes=npy(np.full((150, 4), np.nan, np.float32))), "finite"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_refused_with_the_reason(bad: str) -> None:
    make, reason = BAD_FILES[bad]
    with pytest.raises(BundleError, match=reason) as refused:
        decode(make())
    assert str(refused.value).startswith("some/reference.npz: ")


@pytest.fixture
def bundle(tiny_bundle_path: Path, tmp_path: Path) -> Bundle:
    return Bundle.load(shutil.copytree(tiny_bundle_path, tmp_path / "tiny.anydepth"))


def fitting(bundle: Bundle) -> Reference:
    """References of the right shapes, which is all that the bundle checks."""
    outputs = {spec.name: spec.shape for segment in bundle.segments_for(bundle.full) for spec in segment.outputs}
    rows = choose_rows(np.zeros(outputs["boxes"], np.float32), np.zeros(outputs["logits"], np.float32))
    return Reference(np.zeros(bundle.input_spec().shape, np.uint8), {bundle.full: rows})


def test_a_bundle_without_references_has_none(bundle: Bundle) -> None:
    assert bundle.read_reference() is None


def test_a_bundle_gives_the_references_that_were_written_to_it(bundle: Bundle) -> None:
    written = Bundle.load(write_reference(bundle, fitting(bundle)).path).read_reference()
    assert written is not None
    assert list(written.rows) == [bundle.full]


def test_writing_references_leaves_the_segments_as_they_are(bundle: Bundle) -> None:
    before = {path.name: path.read_bytes() for path in (bundle.path / "segments").iterdir()}
    written = write_reference(bundle, fitting(bundle))
    assert {path.name: path.read_bytes() for path in (bundle.path / "segments").iterdir()} == before
    assert written.manifest.segments == bundle.manifest.segments


def test_references_that_do_not_fit_the_bundle_are_refused_and_change_nothing(bundle: Bundle) -> None:
    before = (bundle.path / MANIFEST_FILE).read_bytes()
    rows = ReferenceRows(*(np.zeros((1, 2), np.float32) for _ in range(3)))
    wrong = Reference(fitting(bundle).image, {bundle.full: rows})
    with pytest.raises(BundleError, match="indices"):
        write_reference(bundle, wrong)
    assert (bundle.path / MANIFEST_FILE).read_bytes() == before
    assert not (bundle.path / REFERENCE_FILE).exists()


def test_a_changed_reference_file_is_refused_at_loading(bundle: Bundle) -> None:
    path = write_reference(bundle, fitting(bundle)).path
    with (path / REFERENCE_FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"reference\.npz: SHA-256"):
        Bundle.load(path)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"file": "../elsewhere.npz", "precision": "float32"}, "file"),
        ({"file": "weights.bin", "precision": "float32"}, "file"),
        ({"file": "MODEL_CARD.md", "precision": "int4"}, "precision"),
        ({"file": "MODEL_CARD.md"}, "lacks the key 'precision'"),
        ("reference.npz", "expected an object"),
    ],
)
def test_a_bad_entry_of_the_manifest_is_refused(bundle: Bundle, entry: object, reason: str) -> None:
    manifest = bundle.path / MANIFEST_FILE
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "reference": entry}))
    with pytest.raises(BundleError, match=f"reference.*{reason}"):
        Bundle.load(bundle.path)

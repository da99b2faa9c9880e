"""Reference outputs of a bundle: an image and what some configurations make of it, to hold engines against."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from anydepth_perception.bundle.errors import BundleError
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace

REFERENCE_FILE = "reference.npz"
BEST_ROWS, SPREAD_ROWS, LAST_ROWS = 100, 50, 50
"""Rows kept of each configuration: the best, which become detections, some of all levels, some of the last tenth."""

_MAX_FILE_BYTES = 64 << 20
_IMAGE = "image"
_PARTS = ("indices", "boxes", "logits")


@dataclass(frozen=True)
class ReferenceRows:
    """Some rows of the raw outputs: `indices` int32 [K], `boxes` float32 [K, 4], `logits` float32 [K, C]."""

    indices: np.ndarray
    boxes: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Reference:
    """An image uint8 [1, H, W, 3] at network size, and the rows that each configuration must give for it.

    `precision` is the arithmetic of the bundle's segments: float32, float16, or int8 where they hold Q/DQ pairs.
    """

    image: np.ndarray
    rows: Mapping[DepthConfig, ReferenceRows]
    precision: str = "float32"


def choose_rows(boxes: np.ndarray, logits: np.ndarray) -> ReferenceRows:
    """The rows of raw boxes [1, N, 4] and logits [1, N, C] that are worth keeping.

    The best ones alone would not do: they may all be of the finest level, which does not depend on the last stages. The
    last tenth holds the coarsest level, which has few rows of all.
    """
    best = np.argsort(-logits[0].max(axis=1), kind="stable")[:BEST_ROWS]
    end = len(logits[0]) - 1
    spread, last = np.linspace(0, end, SPREAD_ROWS), np.linspace(0.9 * end, end, LAST_ROWS)
    indices = np.unique(np.concatenate([best, spread, last]).astype(np.int32))
    return ReferenceRows(indices, boxes[0][indices].astype(np.float32), logits[0][indices].astype(np.float32))


def encode_reference(reference: Reference) -> bytes:
    """The contents of `reference.npz`: `image`, and `CONFIG.indices`, `CONFIG.boxes`, `CONFIG.logits` for each."""
    arrays = {_IMAGE: reference.image}
    for config, rows in reference.rows.items():
        arrays.update({f"{config}.{part}": getattr(rows, part) for part in _PARTS})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            # A fixed date: the same reference gives the same file.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def decode_reference(
    data: bytes, file: str, *, image_shape: tuple[int, ...], num_rows: int, num_classes: int, space: DepthSpace,
    precision: str,
) -> Reference:
    """Reads what `encode_reference` wrote; no size in the file is believed before it is checked.

    Args:
        data: contents of the file.
        file: its name, for errors.
        image_shape: what the bundle's input is.
        num_rows: rows of the raw outputs.
        num_classes: columns of the logits.
        space: configurations of the bundle.
        precision: of the rows.

    Raises:
        BundleError: the file is damaged, or holds something else than references of such a bundle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > _MAX_FILE_BYTES:
                raise BundleError(f"{file}: unpacks to {total} bytes, references have at most {_MAX_FILE_BYTES}")
            arrays = {member.filename.removesuffix(".npy"): _read_array(archive.read(member)) for member in members}
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, EOFError, RuntimeError, OSError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{file}: not readable references, perhaps truncated: {error}") from error
    image = arrays.pop(_IMAGE, None)
    if image is None or image.dtype != np.uint8 or image.shape != image_shape:
        raise BundleError(f"{file}: image is {_describe(image)}, expected uint8{list(image_shape)}")
    rows: dict[DepthConfig, ReferenceRows] = {}
    for text in dict.fromkeys(name.rpartition(".")[0] for name in arrays):
        try:
            config = space.parse(text)
        except DepthConfigError as error:
            raise BundleError(f"{file}: {error}") from error
        rows[config] = _rows(arrays, text, file, num_rows, num_classes)
    return Reference(image, rows, precision)


def _rows(arrays: Mapping[str, np.ndarray], text: str, file: str, num_rows: int, num_classes: int) -> ReferenceRows:
    indices, boxes, logits = (arrays.get(f"{text}.{part}") for part in _PARTS)
    good = (
        indices is not None
        and boxes is not None
        and logits is not None
        and indices.dtype == np.int32
        and indices.ndim == 1
        and 0 < len(indices) <= num_rows
        and int(indices[0]) >= 0
        and int(indices[-1]) < num_rows
        and bool((np.diff(indices) > 0).all())
        and (boxes.dtype, boxes.shape) == (np.float32, (len(indices), 4))
        and (logits.dtype, logits.shape) == (np.float32, (len(indices), num_classes))
        and bool(np.isfinite(boxes).all() and np.isfinite(logits).all())
    )
    if not good or indices is None or boxes is None or logits is None:
        raise BundleError(
            f"{file}: {text} has indices {_describe(indices)}, boxes {_describe(boxes)}, logits {_describe(logits)}; "
            f"expected ascending int32[K] below {num_rows}, finite float32[K, 4] and float32[K, {num_classes}]"
        )
    return ReferenceRows(indices, boxes, logits)


def _read_array(data: bytes) -> np.ndarray:
    """An array out of the bytes of a .npy file.

    Raises:
        ValueError: it is none of a plain type, or does not hold what its header says.
    """
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or dtype.str not in ("|u1", "<i4", "<f4") or fortran_order:
        raise ValueError(f"an array of type {dtype}, expected uint8, int32 or float32 in C order")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)


def _describe(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype}{list(array.shape)}"

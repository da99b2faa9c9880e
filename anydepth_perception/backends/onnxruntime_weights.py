"""Weights that several ONNX Runtime sessions share: each content is in memory once."""

from __future__ import annotations

import hashlib
import threading
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

_SMALLEST_BYTES = 1024
"""Below it stay shapes, scales and the like, which ONNX Runtime wants to read while it loads a graph."""

_MODEL_FILE = "model.onnx"
_WEIGHTS_FILE = "weights"


class SharedWeights:
    """Weights by content, as long as an engine uses them."""

    def __init__(self) -> None:
        self._values: weakref.WeakValueDictionary[tuple[str, tuple[int, ...], bytes], onnxruntime.OrtValue]
        self._values = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    @property
    def total_bytes(self) -> int:
        """Bytes of all weights that are in use."""
        with self._lock:
            return sum(value.tensor_size_in_bytes() for value in self._values.values())

    def take_from(self, model: onnx.ModelProto) -> dict[str, onnxruntime.OrtValue]:
        """Takes the large initialisers out of `model`, and returns their values by name.

        What is left of them refers to a file of weights, as `write_hollow` writes it.
        """
        taken: dict[str, onnxruntime.OrtValue] = {}
        offset = 0
        for tensor in model.graph.initializer:
            if tensor.ByteSize() < _SMALLEST_BYTES:
                continue
            array = numpy_helper.to_array(tensor)
            taken[tensor.name] = self._value(array)
            hollow = TensorProto(
                name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, data_location=TensorProto.EXTERNAL
            )
            for key, text in (("location", _WEIGHTS_FILE), ("offset", str(offset)), ("length", str(array.nbytes))):
                hollow.external_data.add(key=key, value=text)
            offset += array.nbytes
            tensor.CopyFrom(hollow)
        return taken

    def _value(self, array: np.ndarray) -> onnxruntime.OrtValue:
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = (array.dtype.str, array.shape, hashlib.sha256(content.data).digest())
        with self._lock:
            value = self._values.get(key)
            if value is None:
                # A copy, because the array may be a view into the whole model.
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array.copy())
                self._values[key] = value
            return value


def write_hollow(model: onnx.ModelProto, folder: Path) -> Path:
    """Writes a model whose weights were taken into `folder`, with a file of weights that takes no room on disk.

    ONNX Runtime checks that file against the model, but takes the values it was given instead of reading it.
    """
    external = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    total = sum(int(entry.value) for entry in external if entry.key == "length")
    with (folder / _WEIGHTS_FILE).open("wb") as file:
        file.truncate(total)
    path = folder / _MODEL_FILE
    path.write_bytes(model.SerializeToString())
    return path

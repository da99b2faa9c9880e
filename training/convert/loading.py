"""Reads the tensors of a checkpoint, and nothing else: no file can make this run code."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""What is read of a folder, as transformers saves one; the first that is there."""

WRAPPINGS = (
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict"),
    *("module", "model", "state_dict", "model_state_dict", "model_state"),
)
"""Where training runs keep a state dict within a checkpoint; the moving average is preferred, as it is evaluated."""

MAX_HEADER = 100 * 2**20
"""Bytes of a safetensors header at most."""

EXPORT_LINE = "torch.save(network.state_dict(), 'state.pth')"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names it, in one line."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes:
        file: the file that they were read from.
        tensors: by key.
        wrapping: where in the file they are, as `ema.module`; empty for a plain state dict.
        prefix: what was taken off the network's keys, as `module.`; empty for nothing.
    """

    file: Path
    tensors: dict[str, Tensor]
    wrapping: str
    prefix: str = ""

    def sha256(self) -> str:
        """Of the file, in hexadecimal."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a safetensors file, a state dict of torch, a training checkpoint with one inside, or a folder of these.

    Raises:
        CheckpointError: no such file, a damaged one, one that holds code, or one without tensors.
    """
    file = _file_of(path)
    content: Any = _load_safetensors(file) if _is_safetensors(file) else _load_pickle(file)
    found = _state_dict(content)
    if found is None:
        raise CheckpointError(f"{file} holds no tensors: neither a state dict nor one under {', '.join(WRAPPINGS)}")
    wrapping, tensors = found
    return Checkpoint(file, tensors, ".".join(wrapping))


def _state_dict(content: Any) -> tuple[tuple[str, ...], dict[str, Tensor]] | None:
    """The first mapping of tensors under the names of `WRAPPINGS`, or else the content itself; None = there is none."""
    if not isinstance(content, Mapping):
        return None
    for name in WRAPPINGS:
        if isinstance(content.get(name), Mapping) and (inner := _state_dict(content[name])) is not None:
            return (name, *inner[0]), inner[1]
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return ((), tensors) if tensors else None


def _is_safetensors(file: Path) -> bool:
    """By the file's beginning: the hub's cache keeps files without a suffix. A cut-off one is told by its suffix."""
    with file.open("rb") as opened:
        start = opened.read(9)
    length = int.from_bytes(start[:8], "little")
    return file.suffix == ".safetensors" or (start[8:] == b"{" and length <= MAX_HEADER)


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if not path.is_dir():
        return path
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"folder {path} has neither {' nor '.join(FOLDER_FILES)}")


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is no whole safetensors file: {error}") from error


def _load_pickle(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it thinks of a pickle's version
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged, it may raise nearly anything
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code is None:
            raise CheckpointError(f"{file} is damaged, or not written by torch.save") from error
        raise CheckpointError(
            f"{file} holds code ({code[1]}) beside its tensors, so it was not loaded; where you trust it, "
            f"export the tensors alone: {EXPORT_LINE}"
        ) from error

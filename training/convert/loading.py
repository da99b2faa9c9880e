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

WRAPPINGS = ("ema", "module", "model", "state_dict")
"""Where training runs keep a state dict within a checkpoint; the moving average is preferred, as it is evaluated."""

MODULE_PREFIX = "module."
"""What data-parallel training puts before every key."""

EXPORT_LINE = "torch.save(network.state_dict(), 'state.pth')"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names it, in one line."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes:
        file: the file that they were read from.
        tensors: by key, without the `module.` of data-parallel training.
        wrapping: where in the file they are, as `ema.module`; empty for a plain state dict.
    """

    file: Path
    tensors: dict[str, Tensor]
    wrapping: str

    def sha256(self) -> str:
        """Of the file, in hexadecimal."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a safetensors file, a state dict of torch, a training checkpoint with one inside, or a folder of these.

    Raises:
        CheckpointError: no such file, a damaged one, one that holds code, or one without tensors.
    """
    file = _file_of(path)
    content: Any = _load_safetensors(file) if file.suffix == ".safetensors" else _load_pickle(file)
    wrapping = []
    while inner := next((name for name in WRAPPINGS if isinstance(_get(content, name), Mapping)), None):
        content = content[inner]
        wrapping.append(inner)
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file} holds no tensors: neither a state dict nor one under {', '.join(WRAPPINGS)}")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if all(key.startswith(MODULE_PREFIX) for key in tensors):
        tensors = {key.removeprefix(MODULE_PREFIX): value for key, value in tensors.items()}
    return Checkpoint(file, tensors, ".".join(wrapping))


def _get(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, Mapping) else None


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

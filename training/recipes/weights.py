"""The weights file: a detector's tensors as safetensors, and as metadata what is needed to build and describe it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from training.models.detector import AnyDepthDetector
from training.recipes.recipe import Recipe, RecipeError, from_dict


@dataclass(frozen=True)
class Weights:
    """What a weights file holds.

    Attributes:
        model: the network, in evaluation mode.
        recipe: the recipe it was trained by; of converted weights only what describes the network.
        class_names: by class id.
        iteration: optimizer steps taken here; 0 for converted weights.
        provenance: where converted weights come from; None for weights that were trained here.
    """

    model: AnyDepthDetector
    recipe: Recipe
    class_names: list[str]
    iteration: int
    provenance: dict[str, Any] | None = None


def save_weights(
    model: nn.Module,
    path: Path,
    recipe: Recipe,
    class_names: Sequence[str],
    iteration: int,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes a weights file; see `Weights` for the arguments."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    metadata = {
        "recipe": json.dumps(dataclasses.asdict(recipe)),
        "class_names": json.dumps(list(class_names)),
        "iteration": str(iteration),
    }
    if provenance is not None:
        metadata["provenance"] = json.dumps(dict(provenance))
    save_file(tensors, path, metadata)
    path.chmod(0o644)  # safetensors leaves the mode of a temporary file


def start_from(model: nn.Module, path: Path) -> list[str]:
    """Copies a weights file into `model` as far as it fits; returns the names of the tensors left as they are.

    Any-depth weights may come from a plain network and the other way round: the essential paths' batch norms start as
    copies of the full paths', their dedicated aggregators as the first columns of the full ones.

    Raises:
        RecipeError: not such a file, or one of another network: less than half of the tensors fit.
    """
    theirs = load_weights(path).model.state_dict()
    ours = model.state_dict()
    fitting = {}
    for name, tensor in ours.items():
        source = next((theirs[other] for other in _names_elsewhere(name) if other in theirs), None)
        if source is not None and name.endswith("aggregator.essential.conv.weight"):
            source = source[:, : tensor.shape[1]]
        if source is not None and source.shape == tensor.shape:
            fitting[name] = source
    if 2 * len(fitting) < len(ours):
        raise RecipeError(f"{path} holds another network: only {len(fitting)} of {len(ours)} tensors fit")
    model.load_state_dict(fitting, strict=False)
    return sorted(set(ours) - set(fitting))


def _names_elsewhere(name: str) -> list[str]:
    """What other networks may call the tensor `name` of an any-depth or a plain network, best first."""
    names = []
    for alike in (name, name.replace(".aggregator.essential.", ".aggregator.full.")):
        plain = re.sub(r"\.norm\.(full|essential)\.", ".norm.", alike)
        names += [alike, plain, plain.replace(".norm.", ".norm.full.")]
    return names


def load_weights(path: Path) -> Weights:
    """Reads a weights file.

    Raises:
        RecipeError: not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        recipe: Recipe = from_dict(Recipe, json.loads(metadata["recipe"]), str(path))
        class_names = json.loads(metadata["class_names"])
        model = recipe.build_model(len(class_names))
        model.load_state_dict(tensors)
        iteration = int(metadata["iteration"])
        provenance = json.loads(metadata["provenance"]) if "provenance" in metadata else None
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise RecipeError(f"{path} is no weights file of training.train or training.convert: {error}") from error
    return Weights(model.eval(), recipe, class_names, iteration, provenance)

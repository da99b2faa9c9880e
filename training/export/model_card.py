"""The model card of a bundle: what it is, what it was trained on, how well it does, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TRAINED_ORIGIN = """\
Configurations other than those of the nets named above were never trained."""

_AISLE_ORIGIN = f"""\
{_TRAINED_ORIGIN} The weights are Apache-2.0, as the
code that made them. No photograph and no other data set took part."""

_AISLE_USE = """\
For trying the node out: the classes are simple rendered solids in synthetic warehouse aisles, seen from a moving
camera. It has never seen a photograph and will not find real people or real vehicles. **Do not rely on it where
safety is at stake.** For real use train on your own data, or import public weights."""

_CONVERTED_ORIGIN = """\
The weights were converted, not trained here: their licence is their authors'. The essential paths start as copies of
the full ones and were never trained: full depth is what these weights are good for, and with a decoder every exit."""

_TRAINED_USE = """\
For images like those that it was trained on. **Do not rely on it where safety is at stake.**"""

_CONVERTED_USE = """\
What the original weights are for; ask their authors. **Do not rely on it where safety is at stake.**"""

MODEL_CARD = "MODEL_CARD.md"
"""The file of a bundle that holds it."""

AISLE_DATASET = "aisle scenes (synthetic)"
"""The `dataset` of weights that were trained on aisle scenes."""


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown from the manifest of a bundle (without sums); says where a figure is missing."""
    size = manifest["input"]
    skippable = [name for name, paths in manifest["stages"].items() if paths["essential"] != paths["full"]]
    num_configs = 2 ** len(skippable) * max(1, manifest["num_exits"])
    fine = "with" if any(name.endswith(".fine") for name in manifest["segments"]) else "without"
    provenance = "\n".join(f"| {key} | {value} |" for key, value in manifest["provenance"].items())
    origin, use = _CONVERTED_ORIGIN, _CONVERTED_USE
    if manifest["provenance"].get("dataset") == AISLE_DATASET:
        origin, use = _AISLE_ORIGIN, _AISLE_USE
    elif "iterations" in manifest["provenance"]:
        origin, use = _TRAINED_ORIGIN, _TRAINED_USE
    return f"""# {manifest["name"]}

Any-depth detector `{manifest["model"]}`, {fine} FINE in its top-down fusions: one set of weights, {num_configs} depth
configurations. Input {size["width"]}x{size["height"]} pixels (width x height), RGB, {size["resize"]}.

Classes: {", ".join(manifest["class_names"])}.

## Where it comes from

| | |
|---|---|
{provenance}

{origin}

## How well it does

{_accuracy(manifest["accuracy"], list(manifest["stages"]))}

## What it is for

{use}
"""


def _accuracy(accuracy: Mapping[str, Any], stages: Sequence[str]) -> str:
    configurations = accuracy["configurations"]
    if not configurations:
        return "Not measured."
    order = " . ".join(" ".join(stages[start : start + 4]) for start in range(0, len(stages), 4))
    listed = {config: values for config, values in configurations.items() if _is_single(config)}
    rows = "\n".join(
        f"| {config} | {100 * values['AP']:.1f} | {100 * values['AP50']:.1f} |" for config, values in listed.items()
    )
    text = (
        f"On {accuracy['dataset']}, through ONNX Runtime; F is a full path, E an essential one, in the order "
        f"{order}.\n\n| depth | AP | AP50 |\n|---|---|---|\n{rows}"
    )
    if len(listed) < len(configurations):
        text += f"\n\n{len(configurations)} configurations were measured; the manifest lists them all."
    if "estimate" in accuracy:
        estimate = accuracy["estimate"]
        text += (
            f" AP of the others is an estimate fitted to them; over {estimate['num_held_out']} measured configurations "
            f"that the fit did not see, it is off by {100 * estimate['mean_absolute_error']:.2f} AP on average."
        )
    return text


def _is_single(config: str) -> bool:
    """Whether a configuration is full, base, or one stage away from either: those that a reader compares."""
    return min(config.count("F"), config.count("E")) <= 1

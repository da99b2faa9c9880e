"""The model card of a bundle: what it is, what it was trained on, how well it does, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown from the manifest of a bundle (without sums); says where a figure is missing."""
    size = manifest["input"]
    provenance = "\n".join(f"| {key} | {value} |" for key, value in manifest["provenance"].items())
    return f"""# {manifest["name"]}

Any-depth detector `{manifest["model"]}` with FINE in its top-down fusions: one set of weights, 256 depth
configurations. Input {size["width"]}x{size["height"]} pixels (width x height), RGB, {size["resize"]}.

Classes: {", ".join(manifest["class_names"])}.

## Where it comes from

| | |
|---|---|
{provenance}

Super-net and base-net were trained together on the labels; configurations between the two were never trained.
The weights are Apache-2.0, as the code that made them. No photograph and no other data set took part.

## How well it does

{_accuracy(manifest["accuracy"])}

## What it is for

For trying the node out: the classes are simple rendered solids in synthetic warehouse aisles, seen from a moving
camera. It has never seen a photograph and will not find real people or real vehicles. **Do not rely on it where
safety is at stake.** For real use train on your own data, or import public weights.
"""


def _accuracy(accuracy: Mapping[str, Any]) -> str:
    configurations = accuracy["configurations"]
    if not configurations:
        return "Not measured."
    rows = "\n".join(
        f"| {config} | {100 * values['AP']:.1f} | {100 * values['AP50']:.1f} |"
        for config, values in configurations.items()
    )
    return (
        f"On {accuracy['dataset']}, through ONNX Runtime; F is a full path, E an essential one, in the order "
        f"p2 p3 p4 p5 . fpn_p4 fpn_p3 pan_p4 pan_p5.\n\n| depth | AP | AP50 |\n|---|---|---|\n{rows}"
    )

"""The class names of a checkpoint: given by the user, found in the `config.json` beside it, or COCO's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from training.data.coco_names import COCO_NAMES


def read_class_names(text: str) -> tuple[str, ...]:
    """Class names in the order of their ids: `coco`, a file with one on each line, or names with commas between.

    Raises:
        ValueError: an empty name, or one given twice.
    """
    if text == "coco":
        return COCO_NAMES
    path = Path(text)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return _checked([line.strip() for line in lines], f"class names {text!r}")


def names_beside(source: Path) -> tuple[str, ...] | None:
    """Class names of the `config.json` in the folder of a checkpoint, as transformers saves one (`id2label`).

    None where there is no such file, it has none, or only the LABEL_0, LABEL_1, ... that stand for "not given".

    Raises:
        ValueError: names that cannot be used; the message says to give them.
    """
    path = (source if source.is_dir() else source.parent) / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    labels: Any = content.get("id2label") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        return None
    if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in labels.values()):
        return None
    if sorted(labels) != sorted(map(str, range(len(labels)))):
        raise ValueError(f"{path}: the ids of id2label are not 0 to {len(labels) - 1}; give --class-names")
    names = [str(labels[str(index)]).strip() for index in range(len(labels))]
    return _checked(names, f"{path}: id2label (--class-names gives others)")


def _checked(names: list[str], where: str) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if not name:
            raise ValueError(f"{where}: name {index + 1} of {len(names)} is empty")
        if name in names[:index]:
            raise ValueError(f"{where}: {name!r} stands there twice")
    return tuple(names)

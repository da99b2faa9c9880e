"""Pictures with boxes on the way from anybody's format to COCO's: what every reader of a source gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from training.data.pictures import SUFFIXES


class SourceError(ValueError):
    """A source that cannot be used; the message names the file, what is wrong and what would mend it."""


@dataclass(frozen=True)
class Label:
    """One object: the name of its class, its box x, y, width, height in pixels, and whether it is to be ignored."""

    name: str
    box: tuple[float, float, float, float]
    ignored: bool = False


@dataclass
class Picture:
    """One picture with its objects.

    Attributes:
        path: of the file.
        width: of the stored pixels.
        height: likewise.
        labels: its objects.
        split: `train` or `val` where the source says so; empty where it does not.
    """

    path: Path
    width: int
    height: int
    labels: list[Label] = field(default_factory=list)
    split: str = ""


@dataclass
class Source:
    """What was found in a source.

    Attributes:
        kind: the format, in words.
        class_names: in the order that the network's class ids will have; empty where there are no labels.
        pictures: usable ones.
        notes: what was left out, changed or assumed, with how often.
    """

    kind: str
    class_names: list[str]
    pictures: list[Picture] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def pictures_under(folder: Path) -> list[Path]:
    """Every file in and below a folder that counts as a picture, sorted; hidden ones left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def split_of(name: str) -> str:
    """`train` or `val` where a file or folder name says it; empty otherwise. A test set counts as neither."""
    words = name.lower().replace("-", "_").replace(".", "_").split("_")
    if any(word.startswith("train") for word in words):
        return "train"
    return "val" if any(word.startswith("val") for word in words) else ""

"""Labels in COCO's format, as a source of pictures: one JSON file or several, wherever their pictures lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from training.data.coco_file import CocoError, CocoFile, read_coco
from training.data.labels import Label, Picture, Source, SourceError, split_of

HELD_OUT = ("test", "heldout", "held_out")
"""In the name of a file whose pictures are for neither training nor validation."""


def coco_files(folder: Path) -> list[Path]:
    """The JSON files of a folder, or of the folders in it, that have images and annotations."""
    found = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/*.json"))]
    return [path for path in found if _file_names(path) is not None]


def read_coco_source(files: list[Path], images: Path | None = None) -> Source:
    """The pictures of annotation files; classes are joined by their names.

    A file whose name says train or val gives that split; one that says test is left out where there are others.

    Args:
        files: one or more.
        images: the folder that file names are relative to; by default the one near the file that has the most.

    Raises:
        SourceError: a file that cannot be used, or none of whose pictures is found.
    """
    source = Source("COCO JSON", [])
    for path in files:
        if len(files) > 1 and _is_held_out(path):
            source.notes[f"{path.name}: a test set, left out"] += 1
            continue
        try:
            file = read_coco(path, images or _images_folder(path))
        except CocoError as error:
            raise SourceError(str(error)) from error
        _take(file, images or _images_folder(path), source, _split(path) if len(files) > 1 else "")
    return source


def _split(path: Path) -> str:
    return split_of(path.stem) or split_of(path.parent.name)


def _is_held_out(path: Path) -> bool:
    names = (path.stem.lower(), path.parent.name.lower())
    return not _split(path) and any(word in name for word in HELD_OUT for name in names)


def _take(file: CocoFile, folder: Path, source: Source, split: str) -> None:
    used = set(file.labels.tolist())
    for index, name in enumerate(file.class_names):
        if name in file.parents and index not in used:
            source.notes[f"category {name!r}, only the root of others and without objects, left out"] += 1
        elif name not in source.class_names:
            source.class_names.append(name)
    pictures: dict[int, Picture] = {}
    for place, entry in enumerate(file.images):
        if entry.present:
            pictures[place] = Picture(folder / entry.file_name, entry.width, entry.height, split=split)
        else:
            source.notes["pictures that are not there left out"] += 1
    if not pictures:
        raise SourceError(
            f"{file.path}: none of its {len(file.images)} pictures is in {folder} ({file.images[0].file_name}, say); "
            "give their folder by --images"
        )
    for place, label, crowd, box in zip(
        file.places.tolist(), file.labels.tolist(), file.crowd.tolist(), file.boxes.tolist(), strict=True
    ):
        if place < 0:
            source.notes["annotations of pictures that are not listed left out"] += 1
        elif place in pictures:
            x, y, width, height = box
            pictures[place].labels.append(Label(file.class_names[label], (x, y, width, height), crowd))
    source.notes["annotation ids that stand twice numbered anew"] += bool(file.repeated)
    source.pictures += pictures.values()


def _file_names(path: Path) -> list[str] | None:
    """The file names of an annotation file; None for another JSON file or a broken one."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list) or "annotations" not in content:
        return None
    names = [entry.get("file_name") for entry in content["images"] if isinstance(entry, dict)]
    return [name.replace("\\", "/") for name in names if isinstance(name, str)]


def _images_folder(path: Path) -> Path:
    """The folder near an annotation file in which the most of its pictures are."""
    names = _file_names(path) or []
    short = path.stem.removeprefix("instances_")
    near = [path.parent, path.parent.parent]
    tried = [folder / name for folder in near for name in (".", "images", short, f"images/{short}", path.stem)]
    return max(tried, key=lambda folder: sum(os.path.isfile(folder / name) for name in names[:200]))

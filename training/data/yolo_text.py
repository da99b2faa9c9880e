"""Labels as YOLO's text files: one a picture, a line an object, in shares of the picture's sides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from training.data.labels import Label, Picture, Source, SourceError, pictures_under
from training.data.pictures import ImageReadError, picture_size

NAMES_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "_darknet.labels")
"""Where class names stand, one a line, if there is no data.yaml."""

SLACK = 0.05
"""How far a share may lie outside of [0, 1]: such a box is cut; beyond it the numbers are no shares."""


def is_yolo(folder: Path) -> bool:
    """Whether a folder holds YOLO's text labels: a data.yaml, or a text file of the name of a picture."""
    if find_yaml(folder) is not None:
        return True
    return any(label_file(path).is_file() for path in pictures_under(folder))


def find_yaml(folder: Path) -> Path | None:
    """The data.yaml of a folder, whatever its name: the first that has `names`."""
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda path: path.stem != "data"):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(content, dict) and "names" in content:
            return path
    return None


def label_file(picture: Path) -> Path:
    """The text file of a picture: in `labels` beside the last `images` of its path, or beside the picture."""
    parts = list(picture.with_suffix(".txt").parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            parts[place] = "labels"
            if (beside := Path(*parts)).is_file():
                return beside
            break
    return picture.with_suffix(".txt")


def read_yolo(folder: Path, class_names: Sequence[str] = ()) -> Source:
    """The pictures of a folder with data.yaml, or with `images` and `labels` and a list of names.

    Args:
        folder: of the data set.
        class_names: by class id, where the folder does not say.

    Raises:
        SourceError: no names, no pictures, or a line that is no label.
    """
    path = find_yaml(folder)
    if path is None:
        names, files = class_names or _listed_names(folder), [(file, "") for file in pictures_under(folder)]
    else:
        names, files = _read_yaml(path)
        names = class_names or names
    source = Source("YOLO text files", list(names))
    for file, split in files:
        try:
            width, height = picture_size(file)
        except ImageReadError:
            source.notes["pictures that cannot be read left out"] += 1
            continue
        labels = list(_labels(label_file(file), width, height, source.class_names, source.notes))
        source.pictures.append(Picture(file, width, height, labels, split))
    return source


def _listed_names(folder: Path) -> list[str]:
    for name in NAMES_FILES:
        if (folder / name).is_file():
            return _lines(folder / name)
    raise SourceError(
        f"{folder}: text labels have class numbers alone, and there is neither data.yaml nor classes.txt with their "
        "names; give --class-names"
    )


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _read_yaml(path: Path) -> tuple[list[str], list[tuple[Path, str]]]:
    """The class names, and every picture with its split."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = _names(content["names"], path)
    if content.get("nc", len(names)) != len(names):
        raise SourceError(f"{path}: nc is {content['nc']}, but there are {len(names)} names")
    files: dict[Path, str] = {}
    for key, split in (("val", "val"), ("valid", "val"), ("train", "train")):
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            for file in _pictures_of(entry, path, content.get("path"), key):
                files.setdefault(file, split)
    if not files:
        raise SourceError(f"{path}: neither train nor val names a folder or a list of pictures")
    return names, sorted(files.items())


def _names(names: Any, path: Path) -> list[str]:
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise SourceError(f"{path}: the keys of names are not 0 to {len(names) - 1}")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise SourceError(f"{path}: names is {names!r}; it must be a list, or a mapping from 0, 1, ...")
    return [str(name).strip() for name in names]


def _pictures_of(entry: Any, path: Path, base: Any, key: str) -> list[Path]:
    """The pictures of a folder or of a text file that lists them; exports write paths in several ways."""
    if not isinstance(entry, str):
        raise SourceError(f"{path}: {key} is {entry!r}; it must be a folder or a text file that lists pictures")
    entry = entry.replace("\\", "/")
    roots = [path.parent / str(base or "."), path.parent]
    inside = "/".join(part for part in entry.split("/") if part not in ("..", "."))
    for place in [root / name for root in roots for name in (entry, inside)]:
        if place.is_dir():
            return pictures_under(place)
        if place.is_file():
            places = [[root / line for root in (place.parent, *roots)] for line in _lines(place)]
            return [file for tried in places if (file := next(filter(Path.is_file, tried), None)) is not None]
    raise SourceError(f"{path}: {key} is {entry!r}, but there is no such folder or file beside it")


def _labels(file: Path, width: int, height: int, names: Sequence[str], notes: Counter[str]) -> Iterator[Label]:
    if not file.is_file():
        notes["pictures without a text file taken as background"] += 1
        return
    seen: set[str] = set()
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        text = " ".join(line.split())
        if not text:
            continue
        if text in seen:
            notes["lines that stand twice left out"] += 1
            continue
        seen.add(text)
        index, box = _parsed(text, f"{file}:{number}", notes)
        if not 0 <= index < len(names):
            raise SourceError(
                f"{file}:{number}: the class is {index}; there are 0 to {len(names) - 1} ({', '.join(names)})"
            )
        x0, y0, x1, y1 = box
        yield Label(names[index], (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height))


def _parsed(text: str, where: str, notes: Counter[str]) -> tuple[int, tuple[float, float, float, float]]:
    """The class and the box, xyxy in shares of the sides, of one line: a box, a box with a score, or a polygon."""
    try:
        first, *values = (float(part) for part in text.split(" "))
    except ValueError:
        first, values = math.nan, []
    if not first.is_integer() or len(values) < 4 or not all(map(math.isfinite, values)):
        raise SourceError(
            f"{where}: {text[:80]!r} is not `class x y width height` with a whole class and numbers in [0, 1]"
        )
    if len(values) in (4, 5):
        x, y, w, h = values[:4]
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        notes["scores behind boxes not used"] += len(values) == 5
    elif len(values) % 2:
        raise SourceError(f"{where}: has {len(values)} numbers; a box has 4, a polygon an even number from 6 on")
    else:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        notes["polygons taken by the box around them"] += 1
    shares = values[:4] if len(values) < 6 else values
    if max(shares) > 1 + SLACK or min(shares) < -SLACK:
        raise SourceError(
            f"{where}: {text[:80]!r} has numbers outside of [0, 1]; they must be shares of the picture's sides"
        )
    return int(first), box


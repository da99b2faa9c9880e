"""Labels as Pascal VOC's XML files: one a picture, corners in pixels."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from training.data.labels import Label, Picture, Source, SourceError, pictures_under
from training.data.pictures import SUFFIXES, ImageReadError, exif_orientation, picture_size


def is_voc(folder: Path) -> bool:
    """Whether a folder holds such files."""
    return any(_root(path) is not None for path in sorted(folder.rglob("*.xml"))[:20])


def read_voc(folder: Path) -> Source:
    """The pictures of a folder with XML files, beside them or in a folder of their own (`Annotations`, `JPEGImages`).

    Objects marked `difficult` are to be ignored, as VOC's own evaluation does. VOC counts pixels from 1, and its
    corners lie inside of the box; where a coordinate of 0 shows that the files count from 0, they are taken so.

    Raises:
        SourceError: an object that lacks something, or no picture for any file.
    """
    files = {path: root for path in sorted(folder.rglob("*.xml")) if (root := _root(path)) is not None}
    pictures = pictures_under(folder)
    by_name = {path.name: path for path in pictures} | {path.stem: path for path in pictures}
    listed = _listed_splits(folder)
    source = Source("Pascal VOC XML", [])
    corners = {path: _objects(path, root) for path, root in files.items()}
    first = 0 if any(min(box[:2]) < 1 for found in corners.values() for _, box, _ in found) else 1
    if first == 0:
        source.notes["coordinates taken to count from 0"] += 1
    for path, root in files.items():
        picture = _picture(path, root, by_name)
        if picture is None:
            source.notes["XML files without a picture left out"] += 1
            continue
        try:
            width, height = picture_size(picture)
        except ImageReadError:
            source.notes["pictures that cannot be read left out"] += 1
            continue
        _check_size(path, root, picture, (width, height))
        labels = [
            Label(name, (x0 - first, y0 - first, x1 - x0 + first, y1 - y0 + first), difficult)
            for name, (x0, y0, x1, y1), difficult in corners[path]
        ]
        source.notes["difficult objects become regions to ignore"] += sum(label.ignored for label in labels)
        source.pictures.append(Picture(picture, width, height, labels, listed.get(path.stem, "")))
    if not source.pictures:
        raise SourceError(f"{folder}: none of the {len(files)} XML files has its picture in or below this folder")
    taken = {each.path for each in source.pictures}
    source.notes["pictures without an XML file left out"] += len(set(pictures) - taken)
    source.class_names = sorted({label.name for picture in source.pictures for label in picture.labels})
    return source


def _root(path: Path) -> ElementTree.Element | None:
    """The root of a VOC file; None for another or a broken one."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError):
        return None
    return root if root.tag == "annotation" else None


def _picture(path: Path, root: ElementTree.Element, by_name: dict[str, Path]) -> Path | None:
    """The picture of a file: by the file's own name, which renaming keeps right more often than what it says."""
    beside = (path.with_suffix(suffix) for suffix in SUFFIXES)
    if (found := next((file for file in beside if file.is_file()), None)) is not None:
        return found
    said = (root.findtext("filename") or "").replace("\\", "/").rsplit("/", 1)[-1].strip()
    return by_name.get(path.stem) or by_name.get(said) or by_name.get(Path(said).stem)


def _check_size(path: Path, root: ElementTree.Element, picture: Path, size: tuple[int, int]) -> None:
    try:
        said = tuple(int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return
    if not all(said) or said == size:
        return
    turned = ""
    if said == size[::-1] and (orientation := exif_orientation(picture)) > 1:
        turned = f"; its EXIF orientation is {orientation}: store the pixels turned (exiftran -a, mogrify -auto-orient)"
    raise SourceError(f"{picture}: is {size[0]}x{size[1]} pixels, but {path} says {said[0]}x{said[1]}{turned}")


def _objects(path: Path, root: ElementTree.Element) -> list[tuple[str, tuple[float, float, float, float], bool]]:
    """Class name, corners as they stand there, and whether it is difficult, of every object."""
    found = []
    for number, item in enumerate(root.findall("object"), start=1):
        where = f"{path}: object {number}"
        name = (item.findtext("name") or "").strip()
        if not name:
            raise SourceError(f"{where}: has no name")
        texts = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x0, y0, x1, y1 = (float(text or "") for text in texts)
        except ValueError:
            raise SourceError(f"{where}: its bndbox is {texts}; it needs xmin, ymin, xmax, ymax in pixels") from None
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            raise SourceError(f"{where}: its bndbox is {texts}; it must be finite")
        found.append((name, (x0, y0, x1, y1), (item.findtext("difficult") or "0").strip() == "1"))
    return found


def _listed_splits(folder: Path) -> dict[str, str]:
    """The split of each name that `ImageSets/Main/train.txt` and `val.txt` list."""
    found: dict[str, str] = {}
    for split in ("train", "val"):
        for path in folder.rglob(f"ImageSets/Main/{split}.txt"):
            found |= {line.split()[0]: split for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    return found

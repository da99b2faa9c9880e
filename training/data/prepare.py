"""Pictures of one's own, labelled in any format: checked, counted, looked at, split, and made ready to train on.

SOURCE is a folder with data.yaml (YOLO text files), with XML files (Pascal VOC), with a JSON file (COCO, also with
polygons alone), such a JSON file itself, or a folder of pictures without labels. Pictures stay where they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import yaml

from training.data.coco import turned_text
from training.data.coco_source import coco_files, read_coco_source
from training.data.contact_sheet import chosen_pictures, contact_sheet
from training.data.fine_tuning import fine_tuning_recipe, this_machine
from training.data.labels import Picture, Source, SourceError, pictures_under
from training.data.pictures import ImageReadError, exif_orientation, picture_size, read_image
from training.data.split import draw_validation
from training.data.voc_xml import is_voc, read_voc
from training.data.yolo_text import is_yolo, read_yolo

AISLE_WEIGHTS = Path(__file__).resolve().parents[2] / "models" / "aisle-yolo-t.safetensors"
NAMED = 5
"""Of many files with the same fault, how many are named."""

FEW_OBJECTS = 20
"""Fewer training objects of a class than this are told."""


def read_source(source: Path, class_names: Sequence[str] = (), images: Path | None = None) -> Source:
    """The pictures and labels of a source, whatever its format.

    Raises:
        SourceError: nothing usable; the message says what is wrong and what would mend it.
    """
    if source.is_file() and source.suffix == ".json":
        found = read_coco_source([source], images)
    elif source.is_file() and source.suffix in (".yaml", ".yml"):
        found = read_yolo(source.parent, class_names)
    elif not source.is_dir():
        raise SourceError(f"{source}: is neither a folder nor a .json or .yaml file")
    elif files := coco_files(source):
        found = read_coco_source(files, images)
    elif is_voc(source):
        found = read_voc(source)
    elif is_yolo(source):
        found = read_yolo(source, class_names)
    else:
        found = _unlabelled(source)
    found.notes = Counter({note: count for note, count in found.notes.items() if count})
    if not found.pictures:
        raise SourceError(f"{source}: no picture that can be used ({found.kind})")
    _check_names(found, source)
    return found


def _unlabelled(folder: Path) -> Source:
    source = Source("pictures without labels", [])
    for path in pictures_under(folder):
        try:
            source.pictures.append(Picture(path, *picture_size(path)))
        except ImageReadError:
            source.notes["pictures that cannot be read left out"] += 1
    return source


def _check_names(found: Source, source: Path) -> None:
    doubled = [name for name, count in Counter(found.class_names).items() if count > 1]
    if doubled:
        raise SourceError(f"{source}: two classes are called {doubled[0]!r}; rename one, or join them")
    if not all(found.class_names):
        raise SourceError(f"{source}: a class has an empty name; every class needs one")


def check_pictures(found: Source) -> None:
    """Decodes every picture; leaves out broken ones, and training pictures that are in the validation set too."""
    def digest(picture: Picture) -> str:
        read_image(picture.path)
        return hashlib.sha1(picture.path.read_bytes(), usedforsecurity=False).hexdigest()

    def tried(picture: Picture) -> str:
        try:
            return digest(picture)
        except ImageReadError:
            return ""

    with ThreadPoolExecutor(max_workers=min(len(os.sched_getaffinity(0)), 8)) as pool:
        digests = list(pool.map(tried, found.pictures))
    broken = [picture.path.name for picture, text in zip(found.pictures, digests, strict=True) if not text]
    if broken:
        found.notes[f"pictures that cannot be decoded left out: {', '.join(broken[:NAMED])}"] += len(broken)
    whole = [(picture, text) for picture, text in zip(found.pictures, digests, strict=True) if text]
    _split(found, whole)


def _split(found: Source, whole: Sequence[tuple[Picture, str]]) -> None:
    """Keeps the source's split if it has both sides; draws one otherwise."""
    if {"train", "val"} <= {picture.split for picture, _ in whole}:
        validating = {text for picture, text in whole if picture.split == "val"}
        found.pictures = [
            picture for picture, text in whole if picture.split == "val" or (picture.split and text not in validating)
        ]
        leaked = sum(picture.split == "train" and text in validating for picture, text in whole)
        found.notes["training pictures that validate too left out of training"] += leaked
        found.notes["pictures of neither train nor val left out"] += sum(not picture.split for picture, _ in whole)
        found.notes = +found.notes
        return
    classes = [frozenset(label.name for label in picture.labels) for picture, _ in whole]
    drawn = draw_validation(classes, [text for _, text in whole])
    for (picture, _), validates in zip(whole, drawn, strict=True):
        picture.split = "val" if validates else "train"
    found.pictures = [picture for picture, _ in whole]


def coco_content(pictures: Sequence[Picture], class_names: Sequence[str], root: Path) -> dict[str, Any]:
    """COCO instances of the pictures, file names relative to `root`, boxes cut to their picture."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        name = picture.path.relative_to(root).as_posix()
        images.append({"id": number, "file_name": name, "width": picture.width, "height": picture.height})
        for label in picture.labels:
            x, y, width, height = label.box
            x0, y0 = max(x, 0.0), max(y, 0.0)
            x1, y1 = min(x + width, picture.width), min(y + height, picture.height)
            if x1 <= x0 or y1 <= y0:
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": class_names.index(label.name) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": int(label.ignored),
                }
            )
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(class_names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(found: Source, output: Path) -> Path | None:
    """Writes contact_sheet.jpg and, with labels, train.json, val.json and recipe.yaml; returns the recipe's path."""
    output.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(chosen_pictures(found.pictures), found.class_names)
    if not cv2.imwrite(str(output / "contact_sheet.jpg"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{output / 'contact_sheet.jpg'} cannot be written")
    if not found.class_names:
        return None
    paths = [Path(os.path.abspath(picture.path)) for picture in found.pictures]  # links stay where they lead from
    for picture, path in zip(found.pictures, paths, strict=True):
        picture.path = path
    root = Path(os.path.commonpath([path.parent for path in paths]))
    sides = {split: [picture for picture in found.pictures if picture.split == split] for split in ("train", "val")}
    for split, pictures in sides.items():
        (output / f"{split}.json").write_text(json.dumps(coco_content(pictures, found.class_names, root)))
    start = AISLE_WEIGHTS if AISLE_WEIGHTS.is_file() else None
    recipe = fine_tuning_recipe(sides["train"], sides["val"], this_machine(), start)
    recipe["coco"] |= {
        "annotations": str(output.resolve() / "train.json"),
        "folder": str(root),
        "validation_annotations": str(output.resolve() / "val.json") if sides["val"] else "",
        "validation_folder": str(root) if sides["val"] else "",
    }
    path = output / "recipe.yaml"
    path.write_text("# Made by training.data.prepare.\n" + yaml.safe_dump(recipe, sort_keys=False))
    return path


def report(found: Source, source: Path) -> list[str]:
    """What was found, line by line."""
    lines = [f"{source}: {found.kind}, {len(found.pictures)} pictures"]
    counts = {split: Counter[str]() for split in ("train", "val")}
    for picture in found.pictures:
        counts[picture.split or "train"].update(label.name for label in picture.labels if not label.ignored)
    if found.class_names:
        sizes = Counter(picture.split for picture in found.pictures)
        empty = sum(not picture.labels for picture in found.pictures)
        lines.append(f"  {sizes['train']} train, {sizes['val']} validate; {empty} without objects")
    for name in found.class_names:
        train, val = counts["train"][name], counts["val"][name]
        few = "" if train >= FEW_OBJECTS else "   few: expect little of this class"
        lines.append(f"  {name}: {train} objects train, {val} validate{few}")
    lines += [f"  note: {note} ({count})" for note, count in found.notes.items()]
    turned = Counter(exif_orientation(picture.path) for picture in found.pictures)
    del turned[1]
    return [*lines, f"  note: {turned_text(dict(sorted(turned.items())))}"] if turned else lines


def next_steps(source: Path, output: Path, recipe: Path | None) -> list[str]:
    """What to do now, as commands."""
    sheet = output / "contact_sheet.jpg"
    if recipe is None:
        return [
            f"drew some of them in {sheet}",
            "label them (any tool that writes COCO, YOLO or VOC files), then run this again on the labelled folder;",
            "without labels they serve to make an INT8 bundle:",
            f"  python -m anydepth_perception.tools.quantize BUNDLE OUTPUT --images {source}",
        ]
    run = Path("runs") / output.resolve().name
    return [
        f"look at {sheet}: are the boxes where they belong?",
        "train:",
        f"  python -m training.train {recipe} --output {run}",
        "see what came out, in report.html:",
        f"  python -m training.analyse report {run}",
        "make a bundle, with its accuracy at every depth:",
        f"  python -m training.export {run / 'model.safetensors'} {run.name}.anydepth",
        f"  python -m training.accuracy {run.name}.anydepth --coco {output / 'val.json'} --images "
        f"{yaml.safe_load(recipe.read_text())['coco']['folder']}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m training.data.prepare SOURCE`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder or file, see above")
    parser.add_argument("--output", type=Path, help="folder to write (default: prepared/NAME of the source)")
    parser.add_argument("--images", type=Path, help="with COCO: the folder that file names are relative to")
    parser.add_argument("--class-names", default="", metavar="NAME,...", help="with YOLO: by class number")
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.class_names.split(",") if name.strip()]
    source: Path = options.source
    output = options.output or Path("prepared") / source.resolve().with_suffix("").name
    try:
        found = read_source(source, names, options.images)
        check_pictures(found)
        if not found.pictures:
            raise SourceError(f"{source}: none of its pictures can be decoded")
        recipe = write(found, output)
    except (SourceError, ImageReadError, OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print("\n".join([*report(found, source), *next_steps(source, output, recipe)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

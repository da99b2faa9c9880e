"""Finds a bundle by path, or by name among the bundles that come with the package."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from anydepth_perception.bundle.bundle import MANIFEST_FILE
from anydepth_perception.bundle.errors import BundleError

SUFFIX = ".anydepth"
PACKAGE = "anydepth_perception"


def find_bundle(name_or_path: str | Path) -> Path:
    """Folder of a bundle, given as a path or as a name like `aisle-yolo-t`.

    The path of a bundle wins. A name is looked for in `models/` of the source tree and then in the installed
    package's share folder.

    Raises:
        BundleError: none is there; the message lists where it was looked for.
    """
    text = str(name_or_path)
    if not text:
        raise BundleError("the model's name is empty; give a bundle's name or the path of a NAME.anydepth folder")
    path = Path(os.path.expanduser(text))
    looked = [path]
    if path.name == text:
        file_name = text if text.endswith(SUFFIX) else text + SUFFIX
        looked += [folder / file_name for folder in shared_folders("models")]
    for candidate in looked:
        if os.path.isfile(candidate / MANIFEST_FILE):
            return candidate
    if os.path.isdir(path):
        return path  # loading it says which file is missing
    raise BundleError(f"{text}: no such bundle; looked for {', '.join(str(candidate) for candidate in looked)}")


def shared_folders(name: str) -> list[Path]:
    """Where a folder that is installed to share/ may be, `models` or `config`: in the source tree, then in share/."""
    folders = [Path(__file__).resolve().parents[2] / name]
    try:
        from ament_index_python.packages import get_package_share_directory
    except ImportError:
        return folders
    with contextlib.suppress(LookupError, OSError):  # not in the index
        folders.append(Path(get_package_share_directory(PACKAGE)) / name)
    return folders

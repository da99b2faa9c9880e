"""The CSV files of a training run."""

from __future__ import annotations

import csv
from pathlib import Path


def append_row(path: Path, row: dict[str, float]) -> None:
    """Appends a row to a CSV file, with a header where the file is new; keys that it has not yet become new columns."""
    header = _header(path)
    added = [key for key in row if key not in header]
    if added:
        header += added
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        padded = (line + "," * len(added) for line in lines)
        path.write_text("\n".join([",".join(header), *padded]) + "\n")
    with path.open("a", newline="") as file:
        csv.DictWriter(file, header, restval="").writerow(row)


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open() as file:
        return next(csv.reader(file), [])


def drop_rows_after(path: Path, iteration: int) -> None:
    """Removes rows that a resumed run will write again, and a last line that was cut off."""
    if not path.exists():
        return
    header, *rows = path.read_text().splitlines() or [""]
    whole = [row for row in rows if row.count(",") == header.count(",")]
    kept = [row for row in whole if int(row.split(",")[0]) <= iteration]
    if kept:
        path.write_text("\n".join([header, *kept]) + "\n")
    else:
        path.unlink()

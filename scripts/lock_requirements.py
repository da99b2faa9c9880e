"""Resolves requirements/*.in into the pinned requirements/*.txt, for every Python from 3.10 on at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
RESOLVER = "uv==0.13.8"
LOCKS = ("runtime", "ros", "training", "development")
"""In this order, as each lock constrains the ones after it."""

OTHER_PLATFORMS = ("sys_platform == 'win32'", "sys_platform == 'emscripten'")
"""Markers of lines that serve no machine this project runs on."""

TORCH = "torch==2.13.0"
"""Left to no resolver: the index's metadata for it can ask for gigabytes of GPU libraries."""


def lock(resolver: Path, name: str, earlier: list[str]) -> None:
    """Resolve one .in file and write the .txt file beside it."""
    constraints = [part for other in earlier for part in ("--constraint", str(REQUIREMENTS / f"{other}.txt"))]
    target = REQUIREMENTS / f"{name}.txt"
    command = [str(resolver), "pip", "compile", "--quiet", "--universal", "--python-version", "3.10", "--upgrade"]
    command += ["--no-python-downloads", "--no-header", "--no-annotate", *constraints, str(REQUIREMENTS / f"{name}.in")]
    resolved = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    lines = [line for line in resolved if not any(marker in line for marker in OTHER_PLATFORMS)]
    if name == "training":
        lines.insert(0, TORCH)
    target.write_text("\n".join([f"# Made by `make lock` from {name}.in.", *lines]) + "\n")
    print(f"{target.name}: {len(lines)} packages")


def main() -> int:
    """Write all locks with a resolver from a throw-away environment."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", RESOLVER], check=True)
        for index, name in enumerate(LOCKS):
            lock(Path(folder, "bin/uv"), name, list(LOCKS[:index]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

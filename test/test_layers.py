"""The contracts of the layers catch what they are there for; `make lint` holds them against the tree itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PLANTED = {
    "depth/ladder.py": "import anydepth_perception.bundle.manifest",
    "bundle/fields.py": "from anydepth_perception.execution import execution",
    "serving/scheduler.py": "import rclpy",
    "detection/drawing.py": "import torch",
    "profile/steps.py": "import training.families",
    "bundle/write.py": "from anydepth_perception.aisle import scene",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of both halves' sources and of the contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for half in ("anydepth_perception", "training"):
        shutil.copytree(ROOT / half, tmp_path / half, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=tree, capture_output=True, text=True,
        timeout=120, check=False,
    )


@pytest.mark.needs("importlinter")
def test_planted_imports_are_named(tree: Path) -> None:
    assert lint_imports(tree).returncode == 0
    for name, statement in PLANTED.items():
        file = tree / "anydepth_perception" / name
        file.write_text(f"{file.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")
    result = lint_imports(tree)
    assert result.returncode == 1
    for name in PLANTED:
        module = f"anydepth_perception.{name.removesuffix('.py').replace('/', '.')}"
        assert f"{module} -> " in result.stdout, result.stdout

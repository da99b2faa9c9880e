"""The INT8 copy of a bundle is measured like the float32 one."""

from __future__ import annotations

from pathlib import Path

import pytest

from anydepth_perception.bundle import Bundle
from training.quantize import main


@pytest.mark.timeout(120)
def test_measure_fills_the_accuracy_table(tmp_path: Path) -> None:
    output = tmp_path / "t-int8.anydepth"
    assert main(["aisle-yolo-t", str(output), "--images", "aisle", "--count", "2", "--measure", "2"]) == 0
    bundle = Bundle.load(output)
    assert bundle.is_measured(bundle.full)
    assert bundle.manifest.accuracy.dataset == "aisle val, 2 images"

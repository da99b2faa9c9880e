"""The INT8 copy of a bundle is measured like the float32 one."""

from __future__ import annotations

from pathlib import Path

import pytest

from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.bundle.quantization import QuantizationSettings
from anydepth_perception.bundle.reference import encode_reference
from anydepth_perception.tools.quantize import aisle_images, quantize_with_references
from training.quantize import main, measured


@pytest.mark.timeout(120)
def test_measure_fills_the_accuracy_table(tmp_path: Path) -> None:
    output = tmp_path / "t-int8.anydepth"
    assert main(["aisle-yolo-t", str(output), "--images", "aisle", "--count", "2", "--measure", "2"]) == 0
    bundle = Bundle.load(output)
    assert bundle.is_measured(bundle.full)
    assert bundle.manifest.accuracy.dataset == "aisle val, 2 images"


@pytest.mark.timeout(120)
def test_measuring_keeps_the_references(tmp_path: Path) -> None:
    bundle = quantize_with_references(
        Bundle.load(find_bundle("aisle-yolo-t")),
        tmp_path / "t-int8.anydepth",
        aisle_images(1),
        QuantizationSettings(),
        source="test",
    )
    before, after = bundle.read_reference(), measured(bundle, 1).read_reference()
    assert before is not None and after is not None
    assert encode_reference(after) == encode_reference(before)

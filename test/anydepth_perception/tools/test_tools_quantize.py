"""The tool that makes INT8 copies: from images of a folder, and what the default bundle's copy is worth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from tiny_bundle import SIZE, make_tiny_bundle

from anydepth_perception.backends import create_backend, run_once
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.bundle.quantization import CalibrationError, QuantizationSettings
from anydepth_perception.bundle.quantization.place import PLACEMENTS, choose_pairs
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.execution.self_check import TOLERANCES, SelfCheck
from anydepth_perception.tools import quantize as quantize_tool
from anydepth_perception.tools.calibration_images import read_folder


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="nowhere: no such folder"):
        list(read_folder(tmp_path / "nowhere", 3))


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(CalibrationError, match="holds no image"):
        list(read_folder(tmp_path, 3))


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(CalibrationError, match=r"broken\.png: cannot be read"):
        list(read_folder(tmp_path, 3))


def test_images_of_a_folder_are_rgb_and_spread_over_it(tmp_path: Path) -> None:
    for index in range(10):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((4, 4, 3), (0, 0, index * 20), np.uint8))
    images = list(read_folder(tmp_path, 5))
    assert [tuple(image[0, 0]) for image in images] == [(index * 20, 0, 0) for index in (0, 2, 4, 6, 8)]


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    """The default bundle."""
    return Bundle.load(find_bundle("aisle-yolo-t"))


@pytest.fixture(scope="module")
def shipped_int8(shipped: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The default bundle, calibrated on two images."""
    path = tmp_path_factory.mktemp("shipped") / "aisle-yolo-t-int8.anydepth"
    images = quantize_tool.aisle_images(2)
    settings = QuantizationSettings(method="minmax")
    return quantize_tool.quantize_with_references(shipped, path, images, settings, source="test")


@pytest.mark.parametrize("name", ("onnxruntime", pytest.param("openvino", marks=pytest.mark.needs("openvino"))))
def test_engines_of_an_int8_bundle_pass_the_check_against_its_own_references(shipped_int8: Bundle, name: str) -> None:
    backend = create_backend(name, threads=1)
    check = SelfCheck(shipped_int8, backend)
    assert shipped_int8.full in check.configs
    outputs = run_once(backend, shipped_int8.compose(shipped_int8.full), {"images": check.image})
    checked = check.check(shipped_int8.full, outputs["boxes"], outputs["logits"])
    assert checked is not None
    assert checked.tolerance == TOLERANCES["int8"]


def test_an_int8_bundle_is_smaller(shipped: Bundle, shipped_int8: Bundle) -> None:
    sizes = [
        sum((bundle.path / segment.file).stat().st_size for segment in bundle.manifest.segments.values())
        for bundle in (shipped, shipped_int8)
    ]
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_convolutions_that_write_boxes_and_logits_stay_float32(shipped: Bundle, placement: str) -> None:
    head = shipped.read_segment(shipped.manifest.segments["head"])
    plan = choose_pairs(head, placement=placement, min_products=1, final_outputs=("boxes", "logits"))
    channels = {tensor.name: tensor.dims[0] for tensor in head.graph.initializer if len(tensor.dims) == 4}
    dense = [node for node in head.graph.node if node.op_type == "Conv" and channels[node.input[1]] in (4, 6)]
    assert len(dense) >= 3, "class logits of three levels"
    assert plan.convolutions.isdisjoint(node.output[0] for node in dense)


def test_figures_of_the_float32_bundle_are_no_longer_called_measured(shipped: Bundle, shipped_int8: Bundle) -> None:
    assert shipped.is_measured(shipped.full)
    assert not shipped_int8.is_measured(shipped_int8.full)
    assert shipped_int8.average_precision(shipped_int8.full) == shipped.average_precision(shipped.full)


def logits(bundle: Bundle, config: DepthConfig, image: np.ndarray) -> np.ndarray:
    """Logits [1, N, C] on ONNX Runtime."""
    model = bundle.compose(config).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": image})[0]


@pytest.mark.parametrize("text", ["FFFF.FFFF", "EEEE.EEEE", "FEEF.EFFE"])
def test_the_shipped_bundle_scores_an_image_in_int8_as_in_float32(
    shipped: Bundle, shipped_int8: Bundle, text: str
) -> None:
    config = DepthConfig.parse(text)
    height, width = shipped.manifest.input.height, shipped.manifest.input.width
    image = cv2.resize(next(quantize_tool.aisle_images(1)), (width, height))[None]
    expected, found = (logits(bundle, config, image) for bundle in (shipped, shipped_int8))
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.98


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(np.random.default_rng(5).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)):
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def test_the_tool_writes_a_bundle_from_a_folder(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    output = tmp_path / "out-int8.anydepth"
    quantize_tool.main([str(bundle.path), str(output), "--images", str(folder), "--min-products", "1"])
    assert "3 calibration images" in capsys.readouterr().out
    written = Bundle.load(output)
    assert written.manifest.provenance["calibration"]["source"] == "a folder of images"
    assert written.read_reference() is not None


@pytest.mark.parametrize(("runtime", "bits"), [("onnxruntime", 7), ("openvino", 7), ("tensorrt", 8)])
def test_weights_take_all_bits_only_where_no_cpu_adds_them_up(
    tmp_path: Path, folder: Path, runtime: str, bits: int
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    output = tmp_path / "out-int8.anydepth"
    options = ["--images", str(folder), "--min-products", "1", "--for", runtime]
    quantize_tool.main([str(bundle.path), str(output), *options])
    assert Bundle.load(output).manifest.provenance["calibration"]["weight_bits"] == bits


def test_the_tool_says_in_one_line_why_it_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    with pytest.raises(SystemExit, match="1"):
        quantize_tool.main([str(bundle.path), str(tmp_path / "out"), "--images", str(tmp_path / "none")])
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1

"""INT8 bundles: valid at any mixture of paths, close to float32, reproducible, and refused where they make no sense."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from spaces import STAGES
from tiny_bundle import SIZE, make_tiny_bundle

from anydepth_perception.backends import create_backend, run_once
from anydepth_perception.bundle import Bundle, BundleError, find_bundle
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.execution.self_check import TOLERANCES, SelfCheck
from anydepth_perception.quantization import CalibrationError, QuantizationSettings, quantize_bundle, read_folder
from anydepth_perception.quantization.calibrate import METHODS, Histogram, least_error_range, observe_ranges
from anydepth_perception.quantization.place import ACTIVATIONS, CONVOLUTIONS, PLACEMENTS, plan_segment
from anydepth_perception.tools import quantize as quantize_tool

CONFIGS = ("FFFF.FFFF", "EEEE.EEEE", "FEFE.EFEF", "EEFF.FEEF", "FFEE.EEFF")
ALL_CONVOLUTIONS = 1


def pictures(count: int) -> list[np.ndarray]:
    """Smooth pictures with structure, uint8 [SIZE, SIZE, 3]."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for image in small]


def quantize_tiny(folder: Path, placement: str, name: str = "tiny-int8.anydepth") -> Bundle:
    settings = QuantizationSettings(placement, min_products=ALL_CONVOLUTIONS)
    bundle = make_tiny_bundle(folder / "tiny.anydepth")
    return quantize_bundle(bundle, folder / name, pictures(6), settings, source="test")


def run(bundle: Bundle, config: DepthConfig, image: np.ndarray) -> np.ndarray:
    """Raw outputs [N, 4 + C] on ONNX Runtime."""
    model = bundle.compose(config).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate(session.run(None, {"images": image}), axis=2)[0]


@pytest.fixture(scope="module", params=PLACEMENTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """The tiny bundle and its INT8 copy."""
    folder = tmp_path_factory.mktemp(request.param)
    quantized = quantize_tiny(folder, request.param)
    return Bundle.load(folder / "tiny.anydepth"), quantized


@pytest.mark.parametrize("text", CONFIGS)
def test_a_quantized_mixture_puts_out_nearly_what_float32_does(pair: tuple[Bundle, Bundle], text: str) -> None:
    config = DepthConfig.parse(text)
    image = pictures(1)[0][None]
    expected, found = (run(bundle, config, image) for bundle in pair)
    error = np.sqrt(np.mean((found - expected) ** 2, axis=0)) / expected.std(axis=0)
    assert error.min() > 0
    assert error.max() < 0.1


@pytest.mark.parametrize("name", ("onnxruntime", "openvino"))
def test_engines_of_an_int8_bundle_pass_the_check_against_its_own_references(shipped_int8: Bundle, name: str) -> None:
    backend = create_backend(name, threads=1)
    check = SelfCheck(shipped_int8, backend)
    assert shipped_int8.full in check.configs
    outputs = run_once(backend, shipped_int8.compose(shipped_int8.full), {"images": check.image})
    checked = check.check(shipped_int8.full, outputs["boxes"], outputs["logits"])
    assert checked is not None
    assert checked.tolerance == TOLERANCES["int8"]


def test_all_segments_scale_a_boundary_tensor_alike(pair: tuple[Bundle, Bundle]) -> None:
    quantized = pair[1]
    scales: dict[str, set[bytes]] = {stage: set() for stage in STAGES}
    for segment in quantized.manifest.segments.values():
        for tensor in quantized.read_segment(segment).graph.initializer:
            stage = tensor.name.removeprefix(f"{segment.name}/").removesuffix(":scale")
            if tensor.name.endswith(":scale") and stage in scales:
                scales[stage].add(numpy_helper.to_array(tensor).tobytes())
    # Only the head reads pan_p5, beside boundary tensors that no convolution reads.
    assert {len(found) for stage, found in scales.items() if stage != "pan_p5"} == {1}


def test_boundary_tensors_stay_float32(pair: tuple[Bundle, Bundle]) -> None:
    tensors = [tensor for segment in pair[1].manifest.segments.values() for tensor in segment.outputs]
    assert {tensor.dtype for tensor in tensors} == {"float32"}


def test_weights_of_quantized_convolutions_are_int8_in_the_file(pair: tuple[Bundle, Bundle]) -> None:
    quantized = pair[1]
    graph = quantized.read_segment(quantized.manifest.segments["p4.full"]).graph
    kernels = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert len(kernels) == 3
    assert {tensor.data_type for tensor in kernels} == {TensorProto.INT8}


def test_the_manifest_says_int8_and_how_it_was_calibrated(pair: tuple[Bundle, Bundle]) -> None:
    quantized = pair[1]
    provenance = quantized.manifest.provenance
    assert (quantized.name, provenance["precision"], provenance["quantized_from"]) == ("tiny-int8", "int8", "tiny")
    assert provenance["calibration"]["images"] == 6


def test_uint8_around_128_and_int8_around_0_mean_the_same(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    outputs = []
    for signed in (False, True):
        settings = QuantizationSettings(CONVOLUTIONS, min_products=ALL_CONVOLUTIONS, signed=signed)
        path = tmp_path / f"{signed}.anydepth"
        quantized = quantize_bundle(bundle, path, pictures(2), settings, source="test")
        assert zero_points(quantized) == ({(TensorProto.INT8, 0)} if signed else {(TensorProto.UINT8, 128)})
        outputs.append(run(quantized, bundle.full, pictures(1)[0][None]))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def zero_points(bundle: Bundle) -> set[tuple[int, int]]:
    """Types and values of the zero points of all activations."""
    graphs = [bundle.read_segment(segment).graph for segment in bundle.manifest.segments.values()]
    return {
        (tensor.data_type, int(numpy_helper.to_array(tensor)))
        for graph in graphs
        for tensor in graph.initializer
        if tensor.name.endswith(":zero_point") and not tensor.dims
    }


def test_the_other_placement_leaves_no_float_convolution_in_onnx_runtime(tmp_path: Path) -> None:
    quantized = quantize_tiny(tmp_path, ACTIVATIONS)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model = quantized.compose(quantized.full)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "Conv" not in kinds
    assert "QLinearConv" in kinds


def test_the_same_images_give_the_same_bundle(tmp_path: Path) -> None:
    first = quantize_tiny(tmp_path, CONVOLUTIONS)
    (tmp_path / "again").mkdir()
    second = quantize_tiny(tmp_path / "again", CONVOLUTIONS)
    assert first.fingerprint == second.fingerprint


def test_a_bundle_that_is_int8_already_is_refused(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="INT8 already"):
        quantize_bundle(pair[1], tmp_path / "twice.anydepth", pictures(1), QuantizationSettings(), source="test")


def test_no_calibration_images_are_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    settings = QuantizationSettings(min_products=ALL_CONVOLUTIONS)
    with pytest.raises(CalibrationError, match="no calibration images"):
        quantize_bundle(bundle, tmp_path / "out.anydepth", [], settings, source="test")
    assert not (tmp_path / "out.anydepth").exists()


def test_a_bundle_with_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    settings = QuantizationSettings(min_products=100_000)
    with pytest.raises(BundleError, match="no convolution sums up 100000"):
        quantize_bundle(bundle, tmp_path / "out.anydepth", pictures(1), settings, source="test")


@pytest.mark.parametrize("wrong", [{"placement": "some"}, {"method": "guess"}, {"min_products": 0}])
def test_settings_out_of_range_are_named(wrong: dict[str, object]) -> None:
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r}, expected"):
        QuantizationSettings(**wrong)


def test_signed_activations_go_with_symmetric_ranges_only() -> None:
    with pytest.raises(ValueError, match="signed is True, expected False with the placement activations"):
        QuantizationSettings(ACTIVATIONS, signed=True)


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


def outlier_histogram() -> Histogram:
    """A million values in [0, 1) and a single one at 10."""
    counts = np.zeros(2048, np.int64)
    counts[:205] = 5000
    counts[-1] = 1
    return Histogram(0.0, 10.0, counts)


def test_the_range_of_least_error_cuts_an_outlier_off() -> None:
    low, high = least_error_range(outlier_histogram(), symmetric=False)
    assert low == 0.0
    assert 1.0 < high < 5.0


def test_a_symmetric_range_covers_both_ends() -> None:
    low, high = least_error_range(Histogram(-0.5, 2.0, np.ones(2048, np.int64)), symmetric=True)
    assert low == -high
    assert 1.9 < high <= 2.0


@pytest.mark.parametrize("method", METHODS)
def test_a_range_covers_what_a_tensor_holds_at_any_path(tmp_path: Path, method: str) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    image = pictures(1)[0][None]
    runs = [(image, [bundle.full, bundle.base])]
    low, high = observe_ranges(bundle, runs, {"p4"}, method, symmetric=False)["p4"]
    for config in (bundle.full, bundle.base):
        values = inner_tensor(bundle, config, "p4", image)
        assert np.mean((values < low - 1e-6) | (values > high + 1e-6)) < (0.02 if method == "mse" else 1e-9)


def inner_tensor(bundle: Bundle, config: DepthConfig, name: str, image: np.ndarray) -> np.ndarray:
    """Values of a boundary tensor."""
    segments = bundle.segments_for(config)
    writer = next(i for i, segment in enumerate(segments) if any(spec.name == name for spec in segment.outputs))
    model = bundle.compose_segments(segments[: writer + 1], (name,), "part").SerializeToString()
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"images": image})[0]


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    """The default bundle."""
    return Bundle.load(find_bundle("aisle-yolo-t"))


@pytest.fixture(scope="module")
def shipped_int8(shipped: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The default bundle, calibrated on two images."""
    path = tmp_path_factory.mktemp("shipped") / "aisle-yolo-t-int8.anydepth"
    images = quantize_tool.aisle_images(2)
    return quantize_bundle(shipped, path, images, QuantizationSettings(method="minmax"), source="test")


def test_an_int8_bundle_is_smaller(shipped: Bundle, shipped_int8: Bundle) -> None:
    sizes = [
        sum((bundle.path / segment.file).stat().st_size for segment in bundle.manifest.segments.values())
        for bundle in (shipped, shipped_int8)
    ]
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_convolutions_that_write_boxes_and_logits_stay_float32(shipped: Bundle, placement: str) -> None:
    head = shipped.read_segment(shipped.manifest.segments["head"])
    plan = plan_segment(head, placement=placement, min_products=1, final_outputs=("boxes", "logits"))
    channels = {tensor.name: tensor.dims[0] for tensor in head.graph.initializer if len(tensor.dims) == 4}
    dense = [node for node in head.graph.node if node.op_type == "Conv" and channels[node.input[1]] in (4, 6)]
    assert len(dense) >= 3, "class logits of three levels"
    assert plan.convolutions.isdisjoint(node.output[0] for node in dense)


def test_figures_of_the_float32_bundle_are_no_longer_called_measured(shipped: Bundle, shipped_int8: Bundle) -> None:
    assert shipped.is_measured(shipped.full)
    assert not shipped_int8.is_measured(shipped_int8.full)
    assert shipped_int8.average_precision(shipped_int8.full) == shipped.average_precision(shipped.full)


@pytest.mark.parametrize("text", ["FFFF.FFFF", "EEEE.EEEE", "FEEF.EFFE"])
def test_the_shipped_bundle_scores_an_image_in_int8_as_in_float32(
    shipped: Bundle, shipped_int8: Bundle, text: str
) -> None:
    config = DepthConfig.parse(text)
    height, width = shipped.manifest.input.height, shipped.manifest.input.width
    image = cv2.resize(next(quantize_tool.aisle_images(1)), (width, height))[None]
    expected, found = (run(bundle, config, image)[:, 4:] for bundle in (shipped, shipped_int8))
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.98


def test_the_tool_writes_a_bundle_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(pictures(3)):
        cv2.imwrite(str(folder / f"{index}.png"), image)
    output = tmp_path / "out-int8.anydepth"
    quantize_tool.main([str(bundle.path), str(output), "--images", str(folder), "--min-products", "1"])
    assert "3 calibration images" in capsys.readouterr().out
    assert Bundle.load(output).manifest.provenance["calibration"]["source"] == "a folder of images"


def test_the_tool_says_in_one_line_why_it_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny.anydepth")
    with pytest.raises(SystemExit, match="1"):
        quantize_tool.main([str(bundle.path), str(tmp_path / "out"), "--images", str(tmp_path / "none")])
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1

"""Composition: any mixture of paths becomes one valid graph that computes what its segments compute."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from spaces import EIGHT
from tiny_bundle import tiny_parts_with_exits

from anydepth_perception.bundle import Bundle, BundleError, concatenate, write_bundle
from anydepth_perception.depth.space import DepthConfig

MIXTURES = random.Random(3).sample(list(EIGHT.all()), 5)


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path) -> Bundle:
    return Bundle.load(tiny_bundle_path)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    wanted = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


@pytest.mark.parametrize("config", [EIGHT.base, EIGHT.full, *MIXTURES], ids=str)
def test_composed_graph_is_valid_and_typed(bundle: Bundle, config: DepthConfig) -> None:
    model = bundle.compose(config)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images"]
    assert [value.name for value in model.graph.output] == ["boxes", "logits"]
    boundary = {"stem", "p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5"}
    assert boundary <= {info.name for info in model.graph.value_info}


@pytest.mark.parametrize("config", [EIGHT.base, EIGHT.full, *MIXTURES], ids=str)
def test_composed_graph_computes_what_the_chained_segments_compute(bundle: Bundle, config: DepthConfig) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    tensors = {"images": image}
    for segment in bundle.segments_for(config):
        tensors.update(run(bundle.read_segment(segment), tensors))
    whole = run(bundle.compose(config), {"images": image})
    np.testing.assert_allclose(whole["boxes"], tensors["boxes"], atol=1e-5)
    np.testing.assert_allclose(whole["logits"], tensors["logits"], atol=1e-5)


def test_each_path_of_each_stage_changes_the_result(bundle: Bundle) -> None:
    image = np.random.default_rng(2).integers(0, 256, (1, 64, 64, 3), np.uint8)
    base = run(bundle.compose(bundle.base), {"images": image})["logits"]
    for index in range(8):
        config = DepthConfig(tuple(position == index for position in range(8)))
        assert np.abs(run(bundle.compose(config), {"images": image})["logits"] - base).max() > 1e-4, config


def test_consecutive_segments_compose_on_their_own(bundle: Bundle) -> None:
    neck = bundle.segments_for(bundle.full)[5:9]
    model = bundle.compose_segments(neck, ("fpn_p3", "pan_p4", "pan_p5"), "neck")
    onnx.checker.check_model(model, full_check=True)
    assert {value.name for value in model.graph.input} == {"p3", "p4", "p5"}


def test_output_that_no_segment_writes_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no segment of 'backbone' writes 'boxes'"):
        bundle.compose_segments(bundle.segments_for(bundle.full)[:5], ("boxes",), "backbone")


def test_segments_of_different_opsets_are_refused(bundle: Bundle) -> None:
    models = [(segment, bundle.read_segment(segment)) for segment in bundle.segments_for(bundle.full)]
    models[3][1].opset_import[0].version = 18
    with pytest.raises(BundleError, match=r"p4\.full\.onnx: opset 18, but the segments before it use 17"):
        concatenate(models, ("boxes", "logits"), "full", "tiny")


def test_shared_inner_name_is_refused(bundle: Bundle) -> None:
    models = [(segment, bundle.read_segment(segment)) for segment in bundle.segments_for(bundle.full)]
    models[1][1].graph.node[0].name = models[2][1].graph.node[0].name
    with pytest.raises(BundleError, match=r"is also used inside segment 'p2\.full'"):
        concatenate(models, ("boxes", "logits"), "full", "tiny")


def test_tensor_name_without_end_is_refused(bundle: Bundle) -> None:
    segment = bundle.manifest.segments["p2.full"]
    model = bundle.read_segment(segment)
    model.graph.node[0].output[0] = "x" * 1001
    with pytest.raises(BundleError, match=r"p2\.full\.onnx: a tensor's name has 1001 characters"):
        concatenate([(segment, model)], ("p2",), "long", "here")


def test_segment_that_disagrees_with_the_manifest_is_refused(bundle: Bundle) -> None:
    models = [(segment, bundle.read_segment(segment)) for segment in bundle.segments_for(bundle.full)]
    models[2][1].graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    with pytest.raises(BundleError, match=r"p3\.full\.onnx: outputs are p3 float32\[1, 9, 8, 8\], the manifest lists"):
        concatenate(models, ("boxes", "logits"), "full", "tiny")


def test_decoder_exits_choose_their_segments(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "exits.anydepth", *tiny_parts_with_exits())
    assert str(bundle.base) == "EEEE.EEEE.d2"
    shallow = bundle.space.parse("FFFF.FFFF.d1")
    assert [segment.name for segment in bundle.segments_for(shallow)][-1:] == ["exit.1"]
    assert [segment.name for segment in bundle.segments_for(bundle.full)][-2:] == ["decoder.2", "exit.2"]
    for config in (shallow, bundle.full):
        onnx.checker.check_model(bundle.compose(config), full_check=True)
    assert bundle.gflops(shallow) < bundle.gflops(bundle.full)

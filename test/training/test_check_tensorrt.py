"""TensorRT accepts what is exported: every segment and the composed graphs, in float32 and in float16."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from tiny_bundle import tiny_manifest, tiny_segments

from anydepth_perception.bundle import Bundle, write_bundle
from training.check_tensorrt import PRECISIONS, check_bundle, main, random_bundle

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="the lock has TensorRT-RTX for x86-64 Linux only",
)

MODELS = ("yolo-t", "detr-r18")
"""`make check-tensorrt` does the others."""


@pytest.fixture(scope="module", params=MODELS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(request.param, (640, 640), tmp_path_factory.mktemp("bundles") / f"{request.param}.anydepth")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_segment_and_the_composed_graphs_are_accepted(bundle: Bundle, precision: str) -> None:
    checks = list(check_bundle(bundle, [precision]))
    assert {check.graph for check in checks} == {*bundle.manifest.segments, "full", "base"}
    assert {check.graph: check.error for check in checks if check.error} == {}


@pytest.fixture(scope="module")
def bad_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose stem transposes uint8, which TensorRT does not do."""
    segments = tiny_segments()
    cast, scale, transpose = segments["stem"].graph.node[:3]
    transpose.input[0], cast.input[0] = "images", transpose.output[0]
    (first,) = (node for node in segments["stem"].graph.node if node.op_type == "Conv")
    first.input[0] = scale.output[0]
    ordered = [transpose, cast, scale, *segments["stem"].graph.node[3:]]
    del segments["stem"].graph.node[:]
    segments["stem"].graph.node.extend(ordered)
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bad.anydepth", tiny_manifest(), segments)


def test_what_is_refused_fails_the_check_by_its_name(bad_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(bad_bundle.path), "--precision", "float32"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [f"refused: tiny {name}" for name in ("stem", "full", "base")]
    assert all("node 'stem/planes_node' (Transpose)" in line for line in lines)


def test_json_has_every_check(tiny_bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tiny_bundle_path), "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    segments = Bundle.load(tiny_bundle_path).manifest.segments
    expected = {(graph, precision) for graph in (*segments, "full", "base") for precision in PRECISIONS}
    assert {(check["graph"], check["precision"]) for check in checks} == expected
    assert all(check["mebibytes"] > 0 and check["error"] is None for check in checks)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give --model NAME or --bundle PATH"),
        (["--model", "yolo-q"], "invalid choice: 'yolo-q'"),
        (["--model", "yolo-t", "--precision", "int8"], "unknown precision 'int8'; accepted are float32, float16"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert reason in capsys.readouterr().err


def test_an_image_size_that_cannot_be_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "yolo-t", "--image-size", "16", "640"]) == 1
    assert "image_size (16, 640)" in capsys.readouterr().err

"""TensorRT accepts what is exported: every segment and the composed graphs, in float32 and in float16."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from tiny_bundle import tiny_manifest, tiny_segments

from anydepth_perception.backends.tensorrt_builder import PRECISIONS
from anydepth_perception.bundle import Bundle, find_bundle, write_bundle
from training.bench.check_tensorrt import RECORD, check_bundle, main, random_bundle

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="the lock has TensorRT-RTX for x86-64 Linux only",
)

@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.load(find_bundle("aisle-yolo-t"))


@pytest.fixture(scope="module")
def random_detr(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The smallest of its family; `make check-tensorrt` does the other models."""
    return random_bundle("detr-r18", (640, 640), tmp_path_factory.mktemp("bundles") / "detr-r18.anydepth")


def check_all(bundle: Bundle, precision: str) -> None:
    """Every segment, base and full."""
    checks = list(check_bundle(bundle, [precision], num_rungs=2))
    assert {check.graph for check in checks} == {*bundle.manifest.segments, str(bundle.full), str(bundle.base)}
    assert {check.graph: check.error for check in checks if check.error} == {}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_detr_is_accepted(random_detr: Bundle, precision: str) -> None:
    check_all(random_detr, precision)


def test_the_shipped_bundle_is_accepted_in_float32(shipped: Bundle) -> None:
    check_all(shipped, "float32")


def test_the_shipped_bundle_is_accepted_in_float16_with_engines_of_the_recorded_sizes(shipped: Bundle) -> None:
    """Every segment and every rung; `make check-tensorrt` writes the record anew."""
    recorded = json.loads(RECORD.read_text())["mebibytes"]
    checks = list(check_bundle(shipped, ["float16"]))
    assert {check.graph: check.error for check in checks if check.error} == {}
    assert {check.graph: check.mebibytes for check in checks} == pytest.approx(recorded, rel=0.2)


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
    assert main(["--bundle", str(bad_bundle.path), "--precision", "float32", "--rungs", "2"]) == 1
    lines = capsys.readouterr().err.splitlines()
    expected = [f"refused: tiny {graph}" for graph in ("stem", bad_bundle.base, bad_bundle.full)]
    assert [line.split(" in ")[0] for line in lines] == expected
    assert all("node 'stem/planes_node' (Transpose)" in line for line in lines)


def test_json_has_every_check(tiny_bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tiny_bundle_path), "--json", "--rungs", "2"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    bundle = Bundle.load(tiny_bundle_path)
    graphs = [*bundle.manifest.segments, str(bundle.base), str(bundle.full)]
    expected = {(graph, precision) for graph in graphs for precision in PRECISIONS}
    assert {(check["graph"], check["precision"]) for check in checks} == expected
    assert all(check["mebibytes"] > 0 and check["error"] is None for check in checks)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give --model NAME or --bundle PATH"),
        (["--model", "yolo-q"], "invalid choice: 'yolo-q'"),
        (["--model", "yolo-t", "--record", "sizes.json"], "give --bundle PATH and no --model"),
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

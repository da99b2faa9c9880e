"""The command line of training.convert: what it reads, writes and reports, and what it refuses in one line."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rtdetr_layouts import as_original
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import RTDetrForObjectDetection
from yolo_original import original_state

from anydepth_perception.bundle import Bundle
from training.bench.huggingface import random_rtdetr
from training.convert.__main__ import main
from training.data.coco_names import COCO_NAMES
from training.export.__main__ import main as export
from training.families import build_model
from training.models.detr_convert import from_huggingface
from training.models.stage import STATIC
from training.recipes.weights import load_weights

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def state() -> Iterator[dict[str, Tensor]]:
    """Of Hugging Face's RTDetr R18, random; tests don't change it."""
    yield random_rtdetr("r18", seed=0).state_dict()


@pytest.fixture(scope="module")
def source(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a safetensors file."""
    path = tmp_path_factory.mktemp("source") / "rtdetr_r18.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def ours(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our static weights of it."""
    path = tmp_path_factory.mktemp("ours") / "detr-r18.safetensors"
    assert main([str(source), str(path), "--model", "detr-r18", "--static", "--no-fine"]) == 0
    return path


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def tensors_of(path: Path) -> dict[str, Tensor]:
    return load_weights(path).model.state_dict()


def expected_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    model = build_model("detr-r18", len(COCO_NAMES), fine=None, any_depth=STATIC)
    return from_huggingface(state, model).state


def assert_same_tensors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert not [key for key in expected if not torch.equal(actual[key], expected[key])]


def wrap_plain(original: dict[str, Tensor]) -> Any:
    return original


def wrap_ema(original: dict[str, Tensor]) -> Any:
    """As the original saves while training; the raw weights beside the average differ from it."""
    raw = {key: tensor * 0 for key, tensor in original.items()}
    return {"date": "today", "last_epoch": 71, "model": raw, "ema": {"module": original, "updates": 9}}


def wrap_model(original: dict[str, Tensor]) -> Any:
    return {"model": original, "last_epoch": 71}


def wrap_parallel(original: dict[str, Tensor]) -> Any:
    return {"model": {f"module.{key}": tensor for key, tensor in original.items()}}


@pytest.mark.parametrize(
    ("wrap", "wrapping"), [(wrap_plain, ""), (wrap_ema, "ema.module"), (wrap_model, "model"), (wrap_parallel, "model")]
)
def test_the_original_is_read_in_every_wrapping(
    wrap: Callable[[dict[str, Tensor]], Any], wrapping: str, state: dict[str, Tensor], tmp_path: Path, run: Run
) -> None:
    torch.save(wrap(as_original(state)), tmp_path / "rtdetr.pth")
    output = tmp_path / "ours.safetensors"
    code, out, _ = run(tmp_path / "rtdetr.pth", output, "--model", "detr-r18", "--static", "--no-fine", "--json")
    assert code == 0
    assert json.loads(out)["wrapping"] == wrapping
    assert_same_tensors(tensors_of(output), expected_tensors(state))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_transformers_is_read(name: str, state: dict[str, Tensor], tmp_path: Path, run: Run) -> None:
    save = save_file if name.endswith("safetensors") else torch.save
    save(state, tmp_path / name)
    output = tmp_path / "ours.safetensors"
    assert run(tmp_path, output, "--model", "detr-r18", "--static", "--no-fine")[0] == 0
    assert_same_tensors(tensors_of(output), expected_tensors(state))


def test_the_original_yolov12_is_read(tmp_path: Path, run: Run) -> None:
    torch.save(original_state("n", 80), tmp_path / "yolov12n.pth")
    output = tmp_path / "yolo-n.safetensors"
    code, out, _ = run(tmp_path / "yolov12n.pth", output, "--model", "yolo-n")
    assert code == 0
    assert "a checkpoint of the original YOLOv12" in out
    recipe = load_weights(output).recipe
    assert (recipe.model, recipe.resize, recipe.image_size) == ("yolo-n", "letterbox", (640, 640))


def test_the_weights_file_says_what_it_is(source: Path, ours: Path) -> None:
    weights = load_weights(ours)
    recipe = weights.recipe
    assert (recipe.model, recipe.fine, recipe.any_depth) == ("detr-r18", False, False)
    assert (recipe.image_size, recipe.resize) == ((640, 640), "stretch")
    assert (tuple(weights.class_names), weights.iteration) == (COCO_NAMES, 0)
    assert weights.provenance is not None
    assert weights.provenance["source"] == source.name


def test_the_weights_file_exports_to_a_bundle(ours: Path, tmp_path: Path) -> None:
    assert export([str(ours), str(tmp_path / "r18.anydepth"), "--image-size", "64", "64"]) == 0
    bundle = Bundle.load(tmp_path / "r18.anydepth")
    assert bundle.class_names == COCO_NAMES
    assert bundle.manifest.provenance["source"] == "rtdetr_r18.safetensors"


def test_any_depth_and_fine_are_on_by_default(source: Path, tmp_path: Path, run: Run) -> None:
    assert run(source, tmp_path / "a.safetensors", "--model", "detr-r18")[0] == 0
    recipe = load_weights(tmp_path / "a.safetensors").recipe
    assert (recipe.fine, recipe.any_depth) == (True, True)


def test_what_is_initialised_is_the_same_every_time(source: Path, tmp_path: Path, run: Run) -> None:
    for name in ("a", "b"):
        assert run(source, tmp_path / f"{name}.safetensors", "--model", "detr-r18")[0] == 0
    assert_same_tensors(tensors_of(tmp_path / "a.safetensors"), tensors_of(tmp_path / "b.safetensors"))


def test_missing_and_unexpected_keys_are_listed(state: dict[str, Tensor], tmp_path: Path, run: Run) -> None:
    save_file({**state, "model.weight_embedding.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    _, out, _ = run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--model", "detr-r18")
    lines = out.splitlines()
    assert "missing 32 (kept as initialised)" in lines
    assert "  stages.fpn_p4.fine.query.weight" in lines
    assert "unexpected 1 (without a place)" in lines
    assert "  model.weight_embedding.weight" in lines


def test_matched_keys_are_listed_on_demand(source: Path, tmp_path: Path, run: Run) -> None:
    line = "  model.enc_output.0.bias -> decoder.selection.output.bias"
    arguments = (source, tmp_path / "b.safetensors", "--model", "detr-r18", "--static", "--no-fine")
    assert line not in run(*arguments)[1].splitlines()
    assert line in run(*arguments, "--verbose")[1].splitlines()


def test_the_json_report_has_every_key(state: dict[str, Tensor], source: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "b.safetensors"
    report = json.loads(run(source, output, "--model", "detr-r18", "--json")[1])
    assert {key for key, _ in report["matched"]} | set(report["unexpected"]) == state.keys()
    assert {key for _, key in report["matched"]} | set(report["missing"]) == tensors_of(output).keys()
    assert report["layout"] == "Hugging Face's RTDetr"


def test_class_names_come_from_a_file_or_from_the_command_line(tmp_path: Path, run: Run) -> None:
    names = ("pallet", "person", "forklift truck")
    save_file(random_rtdetr("r18", seed=0, class_names=names).state_dict(), tmp_path / "three.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    for given in (tmp_path / "names.txt", ", ".join(names)):
        arguments = ("--model", "detr-r18", "--class-names", given)
        assert run(tmp_path / "three.safetensors", tmp_path / "ours.safetensors", *arguments)[0] == 0
        assert load_weights(tmp_path / "ours.safetensors").class_names == list(names)


def test_transformers_loads_the_folder_that_is_written(
    ours: Path, state: dict[str, Tensor], tmp_path: Path, run: Run
) -> None:
    assert run(ours, tmp_path / "folder", "--model", "detr-r18", "--to", "huggingface")[0] == 0
    network, info = RTDetrForObjectDetection.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not any(info.values())
    assert_same_tensors(network.state_dict(), state)
    assert tuple(network.config.id2label.values()) == COCO_NAMES


def test_hugging_faces_weights_can_be_written_as_a_file_alone(
    ours: Path, state: dict[str, Tensor], tmp_path: Path, run: Run
) -> None:
    assert run(ours, tmp_path / "hf.safetensors", "--model", "detr-r18", "--to", "huggingface")[0] == 0
    assert_same_tensors(load_file(tmp_path / "hf.safetensors"), state)


class Harmful:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def code(folder: Path, _: Path) -> Path:
    torch.save({"model": Harmful(folder / "harm")}, folder / "code.pt")
    return folder / "code.pt"


def whole_network(folder: Path, _: Path) -> Path:
    torch.save({"model": nn.Linear(2, 2)}, folder / "network.pt")
    return folder / "network.pt"


def bare_pickle(folder: Path, _: Path) -> Path:
    (folder / "code.pkl").write_bytes(pickle.dumps(Harmful(folder / "harm")))
    return folder / "code.pkl"


def truncated_safetensors(folder: Path, source: Path) -> Path:
    (folder / "half.safetensors").write_bytes(source.read_bytes()[:100_000])
    return folder / "half.safetensors"


def truncated_pickle(folder: Path, _: Path) -> Path:
    torch.save({"a": torch.zeros(1000)}, folder / "whole.pth")
    (folder / "half.pth").write_bytes((folder / "whole.pth").read_bytes()[:1500])
    return folder / "half.pth"


def empty_file(folder: Path, _: Path) -> Path:
    (folder / "empty.pth").touch()
    return folder / "empty.pth"


def missing_file(folder: Path, _: Path) -> Path:
    return folder / "nowhere.pth"


def empty_folder(folder: Path, _: Path) -> Path:
    return folder


def unknown_layout(folder: Path, _: Path) -> Path:
    save_file({"backbone.weight": torch.zeros(2)}, folder / "other.safetensors")
    return folder / "other.safetensors"


def no_tensors(folder: Path, _: Path) -> Path:
    torch.save({"model": {"epoch": 3}}, folder / "none.pth")
    return folder / "none.pth"


def yolov12(folder: Path, _: Path) -> Path:
    torch.save(original_state("n", 80), folder / "yolov12n.pth")
    return folder / "yolov12n.pth"


def huggingface(_: Path, source: Path) -> Path:
    return source


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (code, "--model detr-r18", f"holds code ({os.name}.mkdir) beside its tensors"),
        (whole_network, "--model detr-r18", "export the tensors alone: torch.save(network.state_dict(), 'state.pth')"),
        (bare_pickle, "--model detr-r18", "code.pkl is damaged, or not written by torch.save"),
        (truncated_safetensors, "--model detr-r18", "half.safetensors is no whole safetensors file"),
        (truncated_pickle, "--model detr-r18", "half.pth is damaged"),
        (empty_file, "--model detr-r18", "empty.pth is damaged"),
        (missing_file, "--model detr-r18", "nowhere.pth does not exist"),
        (empty_folder, "--model detr-r18", "has neither model.safetensors nor pytorch_model.bin"),
        (no_tensors, "--model detr-r18", "none.pth holds no tensors"),
        (unknown_layout, "--model detr-r18", "its first of 1 keys are ['backbone.weight']"),
        (yolov12, "--model detr-r18", "a checkpoint of the original YOLOv12, which is no detr-r18"),
        (yolov12, "--model yolo-s", "is a yolo-n with 80 classes; expected one of yolo-s with 80 classes"),
        (huggingface, "--model yolo-n", "which is no yolo-n; it can become one of detr-r18, detr-r34"),
        (huggingface, "--model detr-r50", "is a detr-r18 with 80 classes; expected one of detr-r50 with 80 classes"),
        (huggingface, "--model detr-r18 --class-names a,b", "with 80 classes; expected one of detr-r18 with 2 classes"),
        (huggingface, "--model detr-r18 --class-names a,,b", "name 2 of 3 is empty"),
        (huggingface, "--model detr-r18 --class-names a,b,a", "'a' stands there twice"),
        (huggingface, "--model detr-r18 --to huggingface", "--to huggingface takes weights of this project"),
    ],
)
def test_refused_in_one_line_and_nothing_written(
    make: Callable[[Path, Path], Path], arguments: str, message: str, source: Path, tmp_path: Path, run: Run
) -> None:
    output = tmp_path / "output.safetensors"
    exit_code, out, error = run(make(tmp_path, source), output, *arguments.split())
    assert (exit_code, out) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not output.exists()
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model detr-r50 --to huggingface", "is a detr-r18; --model says detr-r50"),
        ("--model detr-r18", "is of this project already"),
        ("--model detr-r18 --to huggingface --class-names coco", "the names are in the weights file"),
    ],
)
def test_our_own_weights_are_refused_in_one_line(
    arguments: str, message: str, ours: Path, tmp_path: Path, run: Run
) -> None:
    exit_code, _, error = run(ours, tmp_path / "output.safetensors", *arguments.split())
    assert exit_code == 1
    assert error.count("\n") == 1
    assert message in error


def test_yolo_has_no_place_at_hugging_face(tmp_path: Path, run: Run) -> None:
    torch.save(original_state("n", 80), tmp_path / "yolov12n.pth")
    assert run(tmp_path / "yolov12n.pth", tmp_path / "n.safetensors", "--model", "yolo-n")[0] == 0
    arguments = (tmp_path / "n.safetensors", tmp_path / "hf", "--model", "yolo-n", "--to", "huggingface")
    assert "only AnyDepth-DETR has a place at Hugging Face" in run(*arguments)[2]


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("_orig_mod.", {}),
        ("module._orig_mod.", {}),
        ("_orig_mod.module.", {}),
        ("model.", {"criterion.weight": torch.zeros(3)}),
        ("module.", {"n_averaged": torch.tensor(7)}),
        ("net.detector._orig_mod.", {}),
    ],
)
def test_prefixes_of_wrappers_are_taken_off(
    prefix: str, beside: dict[str, Tensor], state: dict[str, Tensor], tmp_path: Path, run: Run
) -> None:
    for name, layout in (("hf", state), ("original", as_original(state))):
        wrapped = {f"{prefix}{key}": tensor for key, tensor in layout.items()}
        torch.save({"state_dict": {**wrapped, **beside}, "epoch": 3}, tmp_path / f"{name}.ckpt")
        output = tmp_path / f"{name}.safetensors"
        options = ("--model", "detr-r18", "--static", "--no-fine", "--json")
        code, out, error = run(tmp_path / f"{name}.ckpt", output, *options)
        assert code == 0, error
        report = json.loads(out)
        assert (report["prefix"], set(beside) - set(report["unexpected"])) == (prefix, set())
        assert_same_tensors(tensors_of(output), expected_tensors(state))


def test_of_two_copies_the_moving_average_is_taken(state: dict[str, Tensor], tmp_path: Path, run: Run) -> None:
    raw = {f"model.{key}": tensor * 0 for key, tensor in state.items()}
    averaged = {f"ema_model.{key}": tensor for key, tensor in state.items()}
    torch.save({"state_dict": {**raw, **averaged}}, tmp_path / "two.ckpt")
    output = tmp_path / "ours.safetensors"
    assert run(tmp_path / "two.ckpt", output, "--model", "detr-r18", "--static", "--no-fine")[0] == 0
    assert_same_tensors(tensors_of(output), expected_tensors(state))


@pytest.mark.parametrize("wrapping", ["state_dict_ema", "model_ema"])
def test_a_moving_average_beside_the_weights_is_taken(
    wrapping: str, state: dict[str, Tensor], tmp_path: Path, run: Run
) -> None:
    raw = {key: tensor * 0 for key, tensor in state.items()}
    torch.save({"state_dict": raw, wrapping: state, "ema": {"decay": 0.9}}, tmp_path / "both.pth")
    output = tmp_path / "ours.safetensors"
    arguments = ("--model", "detr-r18", "--static", "--no-fine", "--json")
    assert json.loads(run(tmp_path / "both.pth", output, *arguments)[1])["wrapping"] == wrapping
    assert_same_tensors(tensors_of(output), expected_tensors(state))


def test_the_format_is_told_by_content_not_by_suffix(source: Path, tmp_path: Path, run: Run) -> None:
    blob = tmp_path / "4f2c91d0"
    blob.write_bytes(source.read_bytes())
    assert run(blob, tmp_path / "ours.safetensors", "--model", "detr-r18")[0] == 0


def test_class_names_come_from_the_config_beside_the_weights(
    state: dict[str, Tensor], tmp_path: Path, run: Run
) -> None:
    save_file(state, tmp_path / "model.safetensors")
    names = {str(index): f"thing {index}" for index in range(80)}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert run(source, tmp_path / "out" / "ours.safetensors", "--model", "detr-r18")[0] == 0
        assert load_weights(tmp_path / "out" / "ours.safetensors").class_names == list(names.values())
    assert run(tmp_path, tmp_path / "out" / "b.safetensors", "--model", "detr-r18", "--class-names", "coco")[0] == 0
    assert load_weights(tmp_path / "out" / "b.safetensors").class_names == list(COCO_NAMES)


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}'])
def test_a_config_without_names_leaves_cocos(config: str, state: dict[str, Tensor], tmp_path: Path, run: Run) -> None:
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    assert run(tmp_path, tmp_path / "ours.safetensors", "--model", "detr-r18")[0] == 0
    assert load_weights(tmp_path / "ours.safetensors").class_names == list(COCO_NAMES)


def test_other_classes_than_cocos_ask_for_their_names(tmp_path: Path, run: Run) -> None:
    three = random_rtdetr("r18", seed=0, class_names=("a", "b", "c")).state_dict()
    save_file(three, tmp_path / "three.safetensors")
    code, _, error = run(tmp_path / "three.safetensors", tmp_path / "ours.safetensors", "--model", "detr-r18")
    assert code == 1
    assert error.count("\n") == 1
    assert "with 3 classes" in error
    assert "taken for COCO's: give --class-names" in error

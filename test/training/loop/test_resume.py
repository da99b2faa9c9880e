"""Runs that end too early: killed, out of disk, with a loss that is not finite, with another run's checkpoint."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training.loop import checkpoint
from training.loop.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.loop.trainer import Trainer
from training.train import main

ROOT = Path(__file__).parents[3]
ITERATIONS = 8


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"model: yolo-t\nimage_size: [64, 64]\niterations: {ITERATIONS}\nbatch_size: 2\nworkers: 0\n"
        "checkpoint_every: 2\nvalidate_every: 100\nvalidation_images: 1\n"
        "distillation: {}\ndata: {frame_sizes: [[64, 64]], frame_weights: [1]}\n"
    )
    return path


def start(recipe: Path, output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "training.train", str(recipe), "--output", str(output)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def steps_logged(output: Path) -> int:
    log = output / "log.csv"
    return max(0, len(log.read_text().splitlines()) - 1) if log.exists() else 0


def test_a_run_killed_at_a_random_step_ends_bit_for_bit_where_an_uninterrupted_one_does(
    recipe: Path, tmp_path: Path
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(recipe, straight).wait(timeout=300) == 0
    step = random.randint(1, ITERATIONS - 3)  # the last steps are left for the kill to arrive

    first = start(recipe, killed)
    deadline = time.monotonic() + 300
    while steps_logged(killed) < step and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    first.kill()
    assert first.wait(timeout=60) == -9, f"the run was over before it was killed at step {step}"
    assert not (killed / "model.safetensors").exists()
    assert start(recipe, killed).wait(timeout=300) == 0

    ours, theirs = (load_file(folder / "model.safetensors") for folder in (straight, killed))
    assert ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different, f"killed at step {step}: {different}"
    assert (straight / "log.csv").read_text() == (killed / "log.csv").read_text()


def fail_to_write(state: Any, file: Any) -> None:
    file.write(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_previous_checkpoint_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"recipe": "{}", "iteration": 1})
    monkeypatch.setattr(checkpoint.torch, "save", fail_to_write)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be written: .*No space left"):
        save_checkpoint(path, {"recipe": "{}", "iteration": 2})
    assert load_checkpoint(path)["iteration"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_run_goes_on_past_a_checkpoint_that_could_not_be_written(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = torch.save, []

    def fail_first(state: Any, file: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            fail_to_write(state, file)
        real(state, file)

    monkeypatch.setattr(checkpoint.torch, "save", fail_first)
    assert main([str(recipe), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "cannot be written" in "".join(capsys.readouterr())
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["iteration"] == ITERATIONS


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_last_checkpoint(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.step

    def poisoned(self: Trainer, images: torch.Tensor, targets: Any) -> dict[str, float]:
        return step(self, images * float("nan") if self.iteration == 5 else images, targets)

    monkeypatch.setattr(Trainer, "step", poisoned)
    assert main([str(recipe), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert "the super-net's loss is nan at iteration 5, samples 10 to 11 of the run" in message
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["iteration"] == 4


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_refused_by_name(
    content: bytes, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(content)
    assert main([str(recipe), "--output", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "checkpoint.pt is no checkpoint of training.train" in capsys.readouterr().err

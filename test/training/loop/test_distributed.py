"""Training on two processes against one, batch norms over both, and what cannot be shared out."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distributed_steps import RECIPES, STEPS, steps

from training.data.batches import training_batches
from training.data.processes import Processes
from training.loop.distributed import SynchronizedBatchNorm2d, join_processes
from training.loop.trainer import Trainer
from training.models.targets import Targets
from training.recipes.recipe import RecipeError

HERE = Path(__file__).parents[1]


def run_on_two_processes(family: str, folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*command, str(HERE / "distributed_steps.py"), family, str(folder)],
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("family", RECIPES)
def test_two_processes_take_the_same_five_steps_as_one(family: str, tmp_path: Path) -> None:
    alone, trainer = steps(family, tmp_path)
    run_on_two_processes(family, tmp_path)

    together = json.loads((tmp_path / "log.json").read_text())
    assert len(together) == STEPS
    for ours, theirs in zip(alone, together, strict=True):
        # The gradient of a bias in front of a batch norm is nearly nothing but rounding, which Adam makes a step of.
        assert theirs.pop("gradient_norm") == pytest.approx(ours.pop("gradient_norm"), rel=1e-3)
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    for kind, model in (("model", trainer.model), ("ema", trainer.ema.model)):
        for name, value in model.state_dict().items():
            torch.testing.assert_close(weights[kind][name], value, rtol=0, atol=1e-5, msg=f"{kind} {name}")


def test_without_processes_a_synchronized_norm_is_a_plain_one() -> None:
    torch.manual_seed(0)
    plain, synchronized = torch.nn.BatchNorm2d(3), SynchronizedBatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(plain(x), synchronized(x))
    assert torch.equal(plain.running_var, synchronized.running_var)


def test_processes_share_a_batch_without_overlap() -> None:
    recipe = dataclasses.replace(RECIPES["yolo"], iterations=1)
    (whole, _), = training_batches(recipe.samples, 0)
    shares = [next(training_batches(recipe.samples, 0, Processes(rank, 2)))[0] for rank in range(2)]
    assert torch.equal(torch.cat(shares), whole)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch_size 4 is not a multiple of 3 processes x accumulate 1"):
        Trainer(RECIPES["yolo"], tmp_path, Processes(0, 3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_a_missing_gpu_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="process 0 of this machine finds 0 GPUs"):
        join_processes("cuda")


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_precision")
def test_accumulated_parts_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """One image again and again, so that the parts have the same statistics and normalisers as the whole."""
    recipe = dataclasses.replace(
        RECIPES["yolo"], any_depth=False, distillation=None, batch_size=16, sync_norms=False, iterations=1
    )
    images, targets = next(training_batches(recipe.samples, 0))

    def repeated(x: torch.Tensor) -> torch.Tensor:
        return x[:1].repeat(16, *[1] * (x.ndim - 1)).to(torch.float64 if x.is_floating_point() else x.dtype)

    targets = Targets(*(repeated(x) for x in (targets.boxes, targets.labels, targets.ignored)))
    logs = [
        Trainer(dataclasses.replace(recipe, accumulate=parts), tmp_path).step(repeated(images), targets)
        for parts in (1, 2)
    ]
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)
